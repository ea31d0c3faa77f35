"""GET /metrics and /ready, on a port of its own: who scrapes and probes has no business on the port that serves callers.

It runs on the server's event loop, because what is read at a scrape belongs to that loop; the text is made by one thread
beside it. A request is a few lines from a machine next door, so this knows no more of HTTP than that, and bounds all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prometheus_client.exposition import choose_encoder

from aligner_svc.telemetry.metrics import Metrics

log = logging.getLogger("aligner_svc.telemetry.metrics_server")

PATH: Final = "/metrics"
READY_PATH: Final = "/ready"
MAX_CONNECTIONS: Final = 32
"""A pair of Prometheus servers, agents, and people who look by hand."""
_HEAD: Final = 8192
"""Bytes of a request's head at most."""
_ASKING, _ANSWERING = 60.0, 10.0
"""Seconds a connection may be silent, and an answer may take to be taken."""
_SMALL: Final = 1024
"""Bytes that are not worth compressing."""


class MetricsServerError(Exception):
    """It cannot listen; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    accept: str
    gzip: bool
    stays: bool
    """The connection is for more than this one."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class MetricsServer:
    """`start`, then `close`, on the event loop that the metrics belong to."""

    def __init__(
        self, metrics: Metrics, host: str, port: int, *, readiness: Callable[[], tuple[bool, str]] | None = None
    ) -> None:
        """`port` 0: a free one. `readiness`: whether calls are taken, and JSON that says more; asked on the event loop."""
        self._metrics = metrics
        self._readiness = readiness
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # One: two scrapes at a time take turns, and never more than one core of the two that calls may need.
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self.address = ""
        """HOST:PORT in use, once started."""

    async def start(self) -> None:
        """Raises MetricsServerError."""
        try:
            self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=_HEAD)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            where = f"{self._host}:{self._port}"
            raise MetricsServerError(f"cannot serve metrics on {where}: {reason}; set ALIGNER_METRICS__LISTEN") from None
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Idempotent."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._encoding.shutdown(wait=False)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._connections.add(me)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                return
            while await self._serve(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it left, was too slow, or we are closing
        except Exception:
            log.exception("metrics were not served")
        finally:
            self._connections.discard(me)
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow."""
        async with asyncio.timeout(_ASKING):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                await _write(writer, _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), body=True, stays=False)
                return False
        request = _parsed(head)
        if request is None:
            await _write(writer, _plain(HTTPStatus.BAD_REQUEST), body=True, stays=False)
            return False
        await _write(writer, await self._answer(request), body=request.method != "HEAD", stays=request.stays)
        return request.stays

    async def _answer(self, request: _Request) -> _Answer:
        if request.path not in {PATH, READY_PATH}:
            return _plain(HTTPStatus.NOT_FOUND, f"metrics are at {PATH}, readiness is at {READY_PATH}")
        if request.method not in {"GET", "HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "", ("Allow", "GET, HEAD"))
        if request.path == READY_PATH:
            return self._ready()
        self._metrics.refresh()
        return await asyncio.get_running_loop().run_in_executor(self._encoding, self._encoded, request)

    def _ready(self) -> _Answer:
        ready, told = self._readiness() if self._readiness is not None else (False, "{}\n")
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status, told.encode("utf-8"), (("Content-Type", "application/json"), ("Cache-Control", "no-store")))

    def _encoded(self, request: _Request) -> _Answer:
        """On a thread: some milliseconds, of which the event loop gets its turns."""
        encode, content_type = choose_encoder(request.accept)
        body = encode(self._metrics.registry)
        headers: tuple[tuple[str, str], ...] = (("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding"))
        if request.gzip and len(body) > _SMALL:
            # Level 1: half of the time of the default for a tenth more bytes.
            body, headers = gzip.compress(body, 1), (*headers, ("Content-Encoding", "gzip"))
        return _Answer(HTTPStatus.OK, body, headers)


def _parsed(head: bytes) -> _Request | None:
    """None: it is no HTTP/1 request, or one with a body, which nothing here has a use for."""
    first, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version, *more = (*first.split(" "), "", "", "")
    if any(more) or version not in {"HTTP/1.1", "HTTP/1.0"} or not method.isalpha() or not target.startswith("/"):
        return None
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            return None
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return None
    connection = headers.get("connection", "").lower()
    stays = connection == "keep-alive" if version == "HTTP/1.0" else connection != "close"
    return _Request(method, target.partition("?")[0], headers.get("accept", ""), _takes_gzip(headers), stays)


def _takes_gzip(headers: dict[str, str]) -> bool:
    for part in headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _plain(status: HTTPStatus, text: str = "", *headers: tuple[str, str]) -> _Answer:
    body = f"{text or status.phrase}\n".encode("ascii")
    return _Answer(status, body, (("Content-Type", "text/plain; charset=utf-8"), *headers))


async def _write(writer: asyncio.StreamWriter, answer: _Answer, *, body: bool, stays: bool) -> None:
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Length: {len(answer.body)}", f"Connection: {'keep-alive' if stays else 'close'}", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + (answer.body if body else b""))
    async with asyncio.timeout(_ANSWERING):
        await writer.drain()
