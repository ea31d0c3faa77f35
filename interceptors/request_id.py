"""Gives every call an id that client, logs and support can refer to: the client's own, or a new one."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from interceptors.calls.call import Call, Context, enter_call
from interceptors.calls.in_flight import CallsInFlight
from interceptors.handlers.base import CallInterceptor

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Short and harmless in a log line. Anything else is replaced and not cleaned, since a changed id would mislead."""
_MAX_USER_AGENT = 200


class RequestId(CallInterceptor):
    """Creates the Call (see interceptors.calls.call) and returns its id in the trailing metadata, whatever the outcome."""

    def __init__(self, in_flight: CallsInFlight | None = None, exempt: Collection[str] = ()) -> None:
        """`in_flight`: where calls are counted, but those of the methods `exempt`."""
        self._in_flight = in_flight
        self._exempt = frozenset(exempt)

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get(HEADER, "")
        request_id = given if isinstance(given, str) and _WELL_FORMED.fullmatch(given) else f"{random.getrandbits(128):032x}"
        agent, protocol = printable(metadata.get("user-agent", "")), getattr(context, "protocol", "grpc")
        call = Call(method, context.peer(), request_id, agent, protocol)
        enter_call(call)
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), (HEADER, call.request_id)))
        if self._in_flight is None or method in self._exempt:
            yield
            return
        self._in_flight.enter(call)
        try:
            yield
        finally:
            self._in_flight.leave(call)


def printable(value: str | bytes) -> str:
    """A header value that is safe in a log line: its printable ASCII, at most 200 characters."""
    text = value[:_MAX_USER_AGENT] if isinstance(value, str) else ""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character for character in text if " " <= character <= "~")
