"""The rules that the proto states, as a caller hears of them: each with the reason it has everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from aligner_svc.api import buf
from aligner_svc.api.buf import validate
from aligner_svc.api.rule_options import validate_pb2
from aligner_svc.api.v1 import aligner_pb2 as pb
from interceptors.calls.refusal import BrokenRule

_SERVICE = pb.DESCRIPTOR.services_by_name["Aligner"]
_SHOWN = 2**32
"""Values below are small numbers, which a message may repeat."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What is said of a field whose rules are broken; {value} stands for a number in it."""

    reason: str
    text: str


_FIELDS: Mapping[str, _Told] = {
    "config": _Told(reason="CONFIG_MISSING", text="the request has no config"),
    "config.language": _Told(reason="LANGUAGE_INVALID", text='language must be a BCP-47 tag such as "en" or "en-GB"'),
    "config.encoding": _Told(reason="ENCODING_UNKNOWN", text="audio encoding {value} is not known here"),
    "config.sample_rate_hz": _Told(
        reason="SAMPLE_RATE_OUT_OF_RANGE", text="the audio has a sample rate of {value} Hz; 4000 to 192000 are accepted"
    ),
    "config.channels": _Told(reason="CHANNELS_OUT_OF_RANGE", text="the audio has {value} channels; 1 to 8 are accepted"),
}
_ELSEWHERE = frozenset({"payload"})
"""An empty stream message: whether the config is what it lacks depends on those before it, and the upload knows them."""


class ProtoRules:
    """Evaluates the buf.validate options of the service's requests. Compiled once, when it is made.

    No rule looks at the bytes of audio: a chunk takes 2 us, however large. A config, one a call, takes 3 us with
    protovalidate 2, which is native, and 2 to 8 ms with 1.2, which interprets CEL in Python.
    """

    def __init__(self, requests: Iterable[type[Message]] | None = None) -> None:
        """`requests`: those with rules; None: every one of the service."""
        wanted = requests or [GetMessageClass(method.input_type) for method in _SERVICE.methods]
        self._types: frozenset[type[Message]] = frozenset(wanted)
        depth = sys.getrecursionlimit()
        try:
            self._violations = _validator()
            for kind in _reachable(self._types):
                self._violations(kind())  # what cannot be compiled stops the start, and no call
        finally:
            # cel-python raises it to 2500 for the whole process: deep nesting in a token's JSON would pass for sound.
            sys.setrecursionlimit(depth)

    def __call__(self, message: Any) -> Sequence[BrokenRule]:
        """See interceptors.payload_rules.Validate."""
        if type(message) not in self._types:
            return ()
        broken = [_broken(message, violation) for violation in self._violations(message)]
        # One field may break several of its rules: they are told as one.
        return tuple({rule.field: rule for rule in broken if rule.field not in _ELSEWHERE}.values())


def _broken(message: Message, violation: Any) -> BrokenRule:
    proto = violation.proto
    names = [element.field_name for element in proto.field.elements]
    field = ".".join(names)
    told = _FIELDS.get(field)
    if told is None:
        return BrokenRule(field, reason="PAYLOAD_INVALID", description=f"{field or 'the message'} {proto.message}")
    return BrokenRule(field, told.reason, told.text.format(value=_number(message, names)))


def _number(message: Any, names: Iterable[str]) -> int:
    for name in names:
        message = getattr(message, name)
    return message if isinstance(message, int) and message < _SHOWN else 0


def _reachable(types: Iterable[type[Message]]) -> Iterable[type[Message]]:
    """These and the messages inside them."""
    found: set[type[Message]] = set()
    waiting = list(types)
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            inside: list[Any] = [field.message_type for field in kind.DESCRIPTOR.fields]
            waiting += [GetMessageClass(descriptor) for descriptor in inside if descriptor is not None]
    return found


def _validator() -> Callable[[Message], Sequence[Any]]:
    """It is slow to import, and clients, which share the proto, need none of it.

    Release 1 of protovalidate imports buf.validate.validate_pb2, which its wheel does not have: it gets ours, in this
    process alone. Whoever has that module has it loaded by now (see aligner_svc.api.rule_options).
    """
    if "buf.validate.validate_pb2" not in sys.modules:
        ours = {"buf": buf, "buf.validate": validate, "buf.validate.validate_pb2": validate_pb2}
        for name, module in ours.items():
            sys.modules.setdefault(name, module)
    from protovalidate import Validator  # noqa: PLC0415

    make: Callable[[], Any] = Validator
    violations: Callable[[Message], Sequence[Any]] = make().collect_violations
    return violations
