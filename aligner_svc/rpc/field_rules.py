"""The rules that the proto states for its fields, with the reasons and messages that clients get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator

from aligner_client.api.v1 import aligner_pb2 as pb
from interceptors.calls.refusal import BrokenRule

_SERVICE = pb.DESCRIPTOR.services_by_name["Aligner"]
_SHOWN = 2**32
"""Values below are small numbers, which a message may repeat."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is reported of a field whose rules are broken; {value} stands for a number in it."""

    reason: str
    text: str


_FIELDS: Mapping[str, _Fault] = {
    "config": _Fault(reason="CONFIG_MISSING", text="the request has no config"),
    "config.language": _Fault(reason="LANGUAGE_INVALID", text='language must be a BCP-47 tag such as "en" or "en-GB"'),
    "config.encoding": _Fault(reason="ENCODING_UNKNOWN", text="audio encoding {value} is not known here"),
    "config.detail": _Fault(reason="DETAIL_UNKNOWN", text="detail {value} is not known here"),
    "config.transcript_format": _Fault(reason="TRANSCRIPT_FORMAT_UNKNOWN", text="transcript format {value} is not known here"),
    "config.sample_rate_hz": _Fault(
        reason="SAMPLE_RATE_OUT_OF_RANGE", text="the audio has a sample rate of {value} Hz; 4000 to 192000 are accepted"
    ),
    "config.channel_transcripts": _Fault(
        reason="CHANNEL_TRANSCRIPTS_INVALID", text="at most 8 channel_transcripts are accepted, each of another channel"
    ),
    "config.channel_transcripts.channel": _Fault(
        reason="CHANNEL_UNKNOWN", text="a recording has at most 8 channels, counted from 0: there is no such channel"
    ),
    "config.channels": _Fault(reason="CHANNELS_OUT_OF_RANGE", text="the audio has {value} channels; 1 to 8 are accepted"),
}
_ELSEWHERE = frozenset({"payload"})
"""An empty stream message: whether it lacks the config depends on the messages before it, which the upload knows."""


class ProtoRules:
    """Evaluates the buf.validate options of the service's requests, compiled once, when it is made.

    No rule looks at the bytes of audio: a chunk takes 2 us, however large; a config, one a call, takes 3 us.
    """

    def __init__(self, requests: Iterable[type[Message]] | None = None) -> None:
        """`requests`: the types with rules; None: every request of the service."""
        self._types = frozenset(requests or [GetMessageClass(method.input_type) for method in _SERVICE.methods])
        self._validator = Validator()
        for kind in _reachable(self._types):
            self._validator.collect_violations(kind())  # a rule that cannot be compiled stops the start, and no call

    def __call__(self, message: Any) -> Sequence[BrokenRule]:
        """See interceptors.payload_rules.Validate."""
        if type(message) not in self._types:
            return ()
        broken = [_broken(message, violation) for violation in self._validator.collect_violations(message)]
        # A field that breaks several of its rules is reported once.
        return tuple({rule.field: rule for rule in broken if rule.field not in _ELSEWHERE}.values())


def _broken(message: Message, violation: Any) -> BrokenRule:
    proto = violation.proto
    names = [element.field_name for element in proto.field.elements]
    field = ".".join(names)
    fault = _FIELDS.get(field)
    if fault is None:
        return BrokenRule(field, reason="PAYLOAD_INVALID", description=f"{field or 'the message'} {proto.message}")
    return BrokenRule(field, fault.reason, fault.text.format(value=_number(message, names)))


def _number(message: Any, names: Iterable[str]) -> int:
    for name in names:
        message = getattr(message, name, None)  # of a repeated field
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
