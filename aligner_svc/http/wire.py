"""What a kind of request has to do to be a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.http.body import Body, malformed
from aligner_svc.http.context import Metadata
from interceptors.calls.refusal import CallRefusedError

Headers = list[tuple[str, str]]

TIMEOUT: Final = "connect-timeout-ms"
_MAX_DIGITS: Final = 10
_PASSED_ON: Final = ("x-request-id", "retry-after", "ratelimit")
"""Trailing metadata that is a header of the answer."""
_ENCODINGS: Final = ("content-encoding", "connect-content-encoding", "grpc-encoding")
_ONCE: Final = frozenset({"content-type", "content-length", "grpc-timeout", TIMEOUT, *_ENCODINGS})
_METHODS: Final = pb.DESCRIPTOR.services_by_name["Aligner"].methods_by_name


class Answering(Protocol):
    """Sends the answer of a request. Raises ConnectionError if it is not taken."""

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer."""

    async def begin(self, status: int, headers: Headers) -> None:
        """The head of an answer in parts; nothing if it was sent."""

    async def part(self, data: bytes) -> None:
        """A part of it."""

    async def finish(self) -> None:
        """Its end."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Limits of requests: bytes of a message, code points of a transcript."""

    message_bytes: int
    transcript_chars: int

    @property
    def json_bytes(self) -> int:
        """Of a message in JSON: base64 has four characters for three bytes, and a code point may be an escaped pair of 12."""
        return self.message_bytes * 4 // 3 + 8 * self.transcript_chars


@dataclass(frozen=True, slots=True)
class Asked:
    """One request without its body. Names of headers in lower case."""

    verb: str
    target: str
    headers: Mapping[str, str]
    """The first of each name."""
    repeated: frozenset[str] = frozenset()

    def header(self, name: str) -> str:
        """Its value; "" without one."""
        return self.headers.get(name, "")

    def media_type(self) -> str:
        """Without parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()


class Wire(ABC):
    """One request as a call of `method`: `read` gives its messages, `send` and `end` are given the answer."""

    method: str
    GZIP = ""
    """The header that may say gzip, as messages over gRPC may be; "": a body is sent as it is."""

    def __init__(self, asked: Asked, body: Body, answering: Answering, sizes: Sizes) -> None:
        self.asked = asked
        self.body = body
        self.answering = answering
        self.sizes = sizes

    @property
    def timeout(self) -> float | None:
        """Seconds that the client waits for the answer; None: it does not say. What is no number is refused by `read`."""
        given = self.asked.header(TIMEOUT)
        return int(given) / 1000 if is_number(given) else None

    def check_headers(self) -> None:
        """Raises CallRefusedError."""
        if self.asked.repeated & _ONCE:
            raise malformed(f"one of {', '.join(sorted(_ONCE))} was sent twice")
        for name in _ENCODINGS:
            if self._encoding(name) not in {"", "identity"} and not (name == self.GZIP and self.gzipped):
                text = "send the body as it is" + (f", or {self.GZIP}: gzip" if self.GZIP else ", without a content encoding")
                raise CallRefusedError(grpc.StatusCode.UNIMPLEMENTED, "COMPRESSION_REFUSED", text)
        given = self.asked.header(TIMEOUT)
        if given and not is_number(given):
            raise malformed(f"{TIMEOUT} has to be a number of at most {_MAX_DIGITS} digits")

    @property
    def gzipped(self) -> bool:
        """Whether what is sent is compressed, or may be."""
        return self._encoding(self.GZIP) == "gzip"

    def _encoding(self, name: str) -> str:
        return self.asked.header(name).strip().lower()

    @abstractmethod
    async def read(self) -> Any:
        """The next message in bytes, or grpc.aio.EOF. Raises CallRefusedError, and ConnectionError if the client has gone."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """A message of the answer."""

    @abstractmethod
    async def end(self, status: status_pb2.Status | None, trailing: Metadata) -> None:
        """The call has ended; `status` None: well."""


def is_number(text: str) -> bool:
    """Of digits alone, and not too many."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def request_of(method: str) -> Message:
    """An empty request of a method of the Aligner."""
    message: Message = getattr(pb, _METHODS[method.rpartition("/")[2]].input_type.name)()
    return message


def passed_on(trailing: Metadata) -> Headers:
    """Headers for an answer."""
    return [(name, value) for name, value in trailing if name in _PASSED_ON and isinstance(value, str)]


def refused_type(message: str) -> CallRefusedError:
    """For a body of a kind that the method does not take."""
    return CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "CONTENT_TYPE_REFUSED", message)
