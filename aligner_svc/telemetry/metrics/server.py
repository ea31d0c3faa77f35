"""GET /metrics, /ready and /live, on a port of their own: scrapers and probes do not belong on the port that serves callers.

It runs on the server's event loop, to which the values read at a scrape belong; one thread beside it makes the text. h11 is
the HTTP; number, size and time of requests are bounded here. prometheus_client's own server has a thread for each connection
and no bound on connections or slow clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

import h11
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from aligner_svc.errors import StartError

log = logging.getLogger("aligner_svc.telemetry.metrics_server")

PATH: Final = "/metrics"
READY_PATH: Final = "/ready"
LIVE_PATH: Final = "/live"
"""200 from a server whose event loop runs, ready or not: a drain or a lost dependency is no reason to restart it."""
MAX_CONNECTIONS: Final = 32
"""A pair of Prometheus servers, agents, and people who look by hand."""
_MAX_HEAD: Final = 8192
"""Bytes of a request line with its headers."""
_REQUEST_TIMEOUT, _SEND_TIMEOUT = 60.0, 10.0
"""Seconds until a connection has sent its next request, and until it has taken the answer."""
_MIN_GZIP: Final = 1024
"""Bytes from which on compressing is worth it."""


class MetricsServerError(StartError):
    """It cannot listen; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Page(Protocol):
    """What is served as metrics."""

    async def refreshed(self) -> CollectorRegistry:
        """The registry, as of now."""


class MetricsServer:
    """`start`, then `close`, on the event loop that the metrics belong to."""

    def __init__(
        self,
        metrics: Page,
        host: str,
        port: int,
        *,
        readiness: Callable[[], tuple[bool, str] | Awaitable[tuple[bool, str]]] | None = None,
    ) -> None:
        """`port` 0: a free one. `readiness`: whether the server is ready, and JSON with details; called on the event loop."""
        self._metrics = metrics
        self._readiness = readiness
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], None] = {}
        """Those that have done nothing for the longest time come first."""
        # One thread: scrapes at the same time never take more than one core of the two that calls may need.
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self.address = ""
        """HOST:PORT in use, once started."""

    async def start(self) -> None:
        """Raises MetricsServerError."""
        try:
            self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=_MAX_HEAD)
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
        if len(self._connections) >= MAX_CONNECTIONS:  # clients that only hold a connection must not keep a probe out
            next(iter(self._connections)).cancel()
        self._connections[me] = None
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client left or was too slow, or this server closes
        except Exception:
            log.exception("metrics were not served")
        finally:
            self._connections.pop(me, None)
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other, until one side closes the connection."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        while True:
            method = b"GET"
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    while (event := http.next_event()) is h11.NEED_DATA:
                        http.receive_data(await reader.read(_MAX_HEAD))
                if not isinstance(event, h11.Request):
                    return
                method = event.method
                self._active()
                bodyless = isinstance(http.next_event(), h11.EndOfMessage)
                answer = await self._answer(event) if bodyless else _plain(HTTPStatus.BAD_REQUEST)
            except h11.RemoteProtocolError as error:
                answer = _plain(HTTPStatus(error.error_status_hint))
            headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
            data = http.send(h11.Response(status_code=answer.status, reason=answer.status.phrase, headers=headers)) or b""
            if method != b"HEAD":
                data += http.send(h11.Data(answer.body)) or b""
            writer.write(data + (http.send(h11.EndOfMessage()) or b""))
            async with asyncio.timeout(_SEND_TIMEOUT):
                await writer.drain()
            self._active()
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    def _active(self) -> None:
        """The connection of this task has done something."""
        me = asyncio.current_task()
        if me in self._connections:
            self._connections[me] = self._connections.pop(me)

    async def _answer(self, request: h11.Request) -> _Answer:
        path = request.target.partition(b"?")[0].decode("ascii")
        if path not in {PATH, READY_PATH, LIVE_PATH}:
            return _plain(HTTPStatus.NOT_FOUND, f"metrics are at {PATH}, readiness is at {READY_PATH}, liveness at {LIVE_PATH}")
        if request.method not in {b"GET", b"HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "", ("Allow", "GET, HEAD"))
        if path == READY_PATH:
            return await self._ready()
        if path == LIVE_PATH:
            return _plain(HTTPStatus.OK, "live")
        registry = await self._metrics.refreshed()
        accept, encodings = _header(request, b"accept"), _header(request, b"accept-encoding")
        return await asyncio.get_running_loop().run_in_executor(self._encoding, self._encoded, registry, accept, encodings)

    async def _ready(self) -> _Answer:
        found = self._readiness() if self._readiness is not None else (False, "{}\n")
        ready, details = await found if inspect.isawaitable(found) else found
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status, details.encode("utf-8"), (("Content-Type", "application/json"), ("Cache-Control", "no-store")))

    def _encoded(self, registry: CollectorRegistry, accept: str, encodings: str) -> _Answer:
        """On a thread: it takes some milliseconds, in which the event loop gets its turns."""
        encode, content_type = choose_encoder(accept)
        body = encode(registry)
        headers: tuple[tuple[str, str], ...] = (("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding"))
        if len(body) > _MIN_GZIP and _accepts_gzip(encodings):
            # Level 1: half of the time of the default for a tenth more bytes.
            body, headers = gzip.compress(body, 1), (*headers, ("Content-Encoding", "gzip"))
        return _Answer(HTTPStatus.OK, body, headers)


def _header(request: h11.Request, name: bytes) -> str:
    return b",".join(value for found, value in request.headers if found == name).decode("latin-1")


def _accepts_gzip(encodings: str) -> bool:
    for part in encodings.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _plain(status: HTTPStatus, text: str = "", *headers: tuple[str, str]) -> _Answer:
    body = f"{text or status.phrase}\n".encode("ascii")
    return _Answer(status, body, (("Content-Type", "text/plain; charset=utf-8"), *headers))
