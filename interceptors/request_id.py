"""Every call has an id that caller, logs and support can name: the caller's own, or one made here."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interceptors.calls.call import Call, Context, enter_call
from interceptors.handlers.base import CallInterceptor

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Short and harmless in a log line; anything else is replaced, not cleaned: a half id misleads."""
_MAX_USER_AGENT = 200


class RequestId(CallInterceptor):
    """Begins the Call (see interceptors.calls.call) and returns its id in the trailing metadata, whatever the outcome."""

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get(HEADER, "")
        request_id = given if isinstance(given, str) and _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex
        call = Call(method, context.peer(), request_id, printable(metadata.get("user-agent", "")))
        enter_call(call)
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), (HEADER, call.request_id)))
        yield


def printable(value: str | bytes) -> str:
    """A header as it may stand in a log line: its printable ASCII, 200 characters at most."""
    text = value[:_MAX_USER_AGENT] if isinstance(value, str) else ""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character for character in text if " " <= character <= "~")
