"""What an attack is given, and how it says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from aligner_client.aio_status import ServerStatus
from aligner_client.api.v1 import aligner_pb2 as pb
from interceptors.auth.api_keys.format import ApiKey
from tests.kit.clamd_server import ClamdServer
from tests.kit.guarded import bearer
from tests.kit.prod_process import ProdProcess
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.refusals import refusal

ALIGNER = "/aligner.v1.Aligner"
_TRIES, _BUSY = 10, ("SERVER_OVERLOADED", "ENGINE_QUEUE_FULL", "DECODER_UNAVAILABLE", "ENGINE_UNAVAILABLE")
TIMEOUT = 60.0
"""Seconds for one call of an attack. A call that takes longer got through: it holds the server's resources."""


@dataclass(frozen=True)
class Arena:
    """`plain`: a server without client certificates; `mtls`: one that asks for them. `clamd`: that of `plain`, if any."""

    plain: ProdProcess
    mtls: ProdProcess
    clamd: ClamdServer | None
    key: ApiKey
    """A valid API key of `plain` with the scope align, which no attack uses up."""
    channel: grpc.aio.Channel
    """To `plain`."""
    mtls_channel: grpc.aio.Channel

    def over_http(self) -> Arena:
        """The same servers, called over HTTP."""
        plain, mtls = self.plain.over_http(), self.mtls.over_http()
        return replace(self, plain=plain, mtls=mtls, channel=plain.channel(), mtls_channel=mtls.channel())

    @property
    def token(self) -> tuple[str, str]:
        """A valid token's header, for either server."""
        return bearer(self.plain.home.forge.token())


@dataclass(frozen=True)
class Attack:
    """`run` returns "" if the server held, else what got through."""

    name: str
    run: Callable[[Arena], Awaitable[str]]


@dataclass(frozen=True)
class Kind:
    """`at_once`: attacks that run side by side. `short`: how many of them the short form tries, spread evenly.

    `seconds`: after so many no further attack begins, so that a run is bounded on a slow machine too; fewer are tried then.
    """

    name: str
    attacks: Callable[[], Iterable[Attack]]
    at_once: int = 8
    short: int = 12
    seconds: float = 20.0
    needs_clamd: bool = False


@dataclass
class Answer:
    """How a call ended. `reason`: of the ErrorInfo, "" without one. `retry`: seconds of its RetryInfo."""

    code: str
    reason: str = ""
    message: str = ""
    messages: list[Any] = field(default_factory=list)
    retry: float | None = None


async def answer(make: Callable[[], Any], *, patient: bool = True) -> Answer:
    """Make a call and see how it ends; `patient`: again if the server is too busy to judge it."""
    for _ in range(_TRIES):
        found = await once(make())
        if not patient or found.reason not in _BUSY or found.retry is None:
            break
        await asyncio.sleep(min(found.retry, 2.0))
    return found


async def once(call: Any) -> Answer:
    """Await a unary call, or read a stream to its end. The call must just have been made: see aio_status."""
    received: list[Any] = []
    status = ServerStatus(call) if hasattr(call, "__aiter__") else None
    try:
        if hasattr(call, "__aiter__"):
            received += [message async for message in call]
        else:
            received.append(await call)
    except grpc.aio.AioRpcError as error:
        shown = error if status is None else await status.original(error)
        try:
            found = refusal(shown)
        except AssertionError:
            return Answer(shown.code().name, "", shown.details() or "")
        return Answer(found.code.name, found.reason, found.message, retry=found.retry_seconds)
    return Answer("OK", messages=received)


def held(found: Answer, *allowed: str) -> str:
    """Return nothing if the call ended with one of the allowed reasons, or codes where the transport refuses without a reason."""
    if found.reason in allowed or (not found.reason and found.code in allowed):
        return ""
    return f"{found.code} {found.reason} {found.message[:100]}".strip()


async def unary(
    channel: grpc.aio.Channel, path: str, request: bytes, *metadata: tuple[str, str | bytes], **options: Any
) -> Answer:
    """Call with raw bytes as the request."""
    return await answer(lambda: channel.unary_unary(path)(request, metadata=metadata, timeout=TIMEOUT, **options))


async def stream(channel: grpc.aio.Channel, path: str, requests: Sequence[bytes], *metadata: tuple[str, str | bytes]) -> Answer:
    """Call with a stream of raw requests."""
    return await answer(lambda: channel.stream_stream(path)(iter(requests), metadata=metadata, timeout=TIMEOUT))


def align(audio: bytes = SPEECH, transcript: str = TRANSCRIPT, **config: Any) -> bytes:
    """An AlignRequest."""
    rest = {"language": "en"} | config
    return pb.AlignRequest(config=pb.AlignConfig(transcript=transcript, **rest), audio=audio).SerializeToString()


def upload(chunks: Sequence[bytes], transcript: str = TRANSCRIPT, **config: Any) -> list[bytes]:
    """The messages of a StreamAlign."""
    rest = {"language": "en"} | config
    first = pb.StreamAlignRequest(config=pb.AlignConfig(transcript=transcript, **rest))
    return [first.SerializeToString(), *(pb.StreamAlignRequest(audio=chunk).SerializeToString() for chunk in chunks)]


INFO = f"{ALIGNER}/GetServerInfo"
ALIGN = f"{ALIGNER}/Align"
STREAM = f"{ALIGNER}/StreamAlign"
