r"""The gRPC server on its port: refuses unknown methods before their path is decoded, and serves again if accepting calls fails.

grpc.aio decodes `:path` strictly in the loop that accepts calls (1.85.1 and 1.85.3: `rpc_state.method().decode()`), so one
request for `/\xff`, without any credential, ended the loop for good while the process lived on. Every method that is served
is registered by name, and gRPC's core matches those by their bytes: only a path that names no served method is decoded. Such
calls are answered here instead, as calls of the method UNKNOWN. The loop may still end for another reason: then a new
server takes the port, and calls in flight on the old one go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, cast

import grpc
from grpc import aio
from grpc._cython import cygrpc
from grpc.aio import _server as aio_server

from aligner_svc.errors import StartError
from aligner_svc.transport.bind import Address, take
from interceptors.background import Tasks

log = logging.getLogger(__name__)

UNKNOWN: Final = "/unknown/unknown"
"""The method of every call whose path names none that is served: the path itself is never decoded."""

_CALL_TASK: Final = "HandleExceptions[{}]"
"""Name that gRPC gives to the task of a call, by its method; it ends when the status is sent."""
_LOOK_EVERY: Final = 0.1
"""Seconds between two looks at the calls that a stopping server still has."""
_RESTART_TIMEOUT: Final = 2.0
"""Seconds in which the port must be served again. The old server's socket is closed within some milliseconds."""
_RESTART_PAUSE: Final = 0.02
_CALLS_TIMEOUT: Final = 24 * 3600.0
"""Seconds for the calls in flight on a server that failed: as long as the longest drain."""


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # Cython's classes have no annotations
    """gRPC's asyncio server. Overrides internal methods, which the tests look for in the installed version."""

    def __init__(self, interceptors: Sequence[aio.ServerInterceptor], options: Sequence[tuple[str, int]]) -> None:
        loop = cygrpc.get_working_loop()
        super().__init__(loop, None, (), tuple(interceptors), tuple(options), None)
        self.on_end: Callable[[Exception], None] | None = None
        """Called if the loop that accepts calls fails."""
        self._tasks = loop
        self._interceptors_of_unknown = tuple(interceptors)
        self._no_methods = cygrpc._MethodResolver([], {})  # noqa: SLF001
        self._unknown = Tasks()
        self._last: Any = None

    @property
    def last_peer(self) -> str:
        """The client of the call accepted last, as gRPC writes its address; "" if there was none or its call is gone."""
        try:
            return str(cygrpc._ServicerContext(self._last, None, None, self._tasks).peer())  # noqa: SLF001
        except Exception:
            return ""

    async def _server_main_loop(self, started: asyncio.Future[bool]) -> None:
        try:
            await super()._server_main_loop(started)
        except Exception as error:
            if self.on_end is None:
                raise
            self.on_end(error)

    async def _request_registered_call(self, method: bytes) -> Any:
        self._last = call = await super()._request_registered_call(method)
        return call

    async def _request_call(self) -> Any:
        """Accept calls of methods that are not registered, and answer them. Never returns; raises when the server stops."""
        while True:
            self._last = call = await super()._request_call()
            handling = cygrpc._handle_rpc(  # noqa: SLF001
                UNKNOWN, self._no_methods, self._interceptors_of_unknown, call, self._tasks, False
            )
            self._unknown.start(cygrpc._schedule_rpc_coro(handling, call, self._tasks, UNKNOWN))  # noqa: SLF001


class _Server(aio_server.Server):
    """grpc.aio's server over `_Core`."""

    def __init__(self, core: _Core) -> None:
        self._server = self.core = core
        self._loop = cygrpc.get_working_loop()


def build_server(interceptors: Sequence[aio.ServerInterceptor], options: Iterable[tuple[str, int]]) -> aio.Server:
    """A server for a Listener. `options` as of grpc.aio.server."""
    return cast("aio.Server", _Server(_Core(interceptors, [*options])))


def _core(server: aio.Server) -> _Core:
    assert isinstance(server, _Server)
    return server.core


class Listener:
    """Keeps a server on one address. `bind`, `start`, then `stop`, on the same event loop."""

    def __init__(
        self,
        build: Callable[[], aio.Server],
        credentials: grpc.ServerCredentials | None,
        on_restart: Callable[[str, str], None] = lambda reason, peer: None,
        *,
        exempt: Collection[str] = (),
        shared: bool = False,
    ) -> None:
        """`build`: a server of `build_server` with its services, not started.

        `on_restart`: called when it had to serve again, with the reason and the client of the call accepted last, which may
        have caused it. `exempt`: methods of strangers, whose calls `stop` does not wait for. `shared`: other processes serve
        the same port.
        """
        self.lost = asyncio.Event()
        """Set if the port could not be served again: end the process."""
        self._build = build
        self._credentials = credentials
        self._on_restart = on_restart
        self._exempt = {_CALL_TASK.format(method) for method in exempt}
        self._shared = shared
        self._address: Address | None = None
        self._servers: list[aio.Server] = []
        """The last one accepts calls; those before it failed, and still have calls in flight."""
        self._background = Tasks()
        self._stopping = False

    def bind(self, address: Address) -> Address:
        """Take the port without accepting calls yet; the address with its port. Raises StartError."""
        server = self._build()
        self._address = take(server, address, self._credentials, shared=self._shared)
        self._servers.append(server)
        return self._address

    async def start(self) -> None:
        """Accept calls."""
        await self._accept(self._servers[-1])

    async def stop(self, grace: float) -> None:
        """Accept no more calls; end those that still run after `grace` seconds. Idempotent.

        A client that takes no response (an HTTP/2 window of 0) keeps its call for the whole grace. Once no other call is left,
        calls of exempt methods are ended: any stranger could make the server wait otherwise.
        """
        self._stopping = True
        servers = tuple(self._servers)
        stopping = {asyncio.create_task(server.stop(grace)) for server in servers}
        while stopping:
            ended, stopping = await asyncio.wait(stopping, timeout=_LOOK_EVERY)
            for task in ended:
                task.result()
            if stopping and not self._waited_for():
                await asyncio.gather(*(server.stop(None) for server in servers))
        await self._background.wait()

    def _waited_for(self) -> bool:
        """Whether calls of other methods than the exempt ones run, or their responses are being sent."""
        names = {task.get_name() for task in asyncio.all_tasks()}
        return any(name.startswith(_CALL_TASK.partition("{")[0]) for name in names - self._exempt)

    async def _accept(self, server: aio.Server) -> None:
        _core(server).on_end = self._on_end
        await server.start()

    def _on_end(self, error: Exception) -> None:
        if self._stopping:
            return
        log.error("gRPC accepts no more calls, serving again", exc_info=error)
        failed = self._servers[-1]
        reason, peer = type(error).__name__, _core(failed).last_peer
        self._background.start(self._let_finish(failed))
        self._background.start(self._serve_again(reason, peer))

    async def _let_finish(self, server: aio.Server) -> None:
        """Close the socket of a failed server at once, and its connections when their calls have ended."""
        await server.stop(_CALLS_TIMEOUT)
        self._servers.remove(server)

    async def _serve_again(self, reason: str, peer: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert self._address is not None
        try:
            while not self._stopping:
                server = self._build()
                try:
                    take(server, self._address, self._credentials, shared=self._shared)
                    break
                except StartError:
                    if loop.time() - began > _RESTART_TIMEOUT:
                        raise
                await asyncio.sleep(_RESTART_PAUSE)
            else:
                return
            self._servers.append(server)
            await self._accept(server)
        except Exception:
            log.critical("the port cannot be served again", exc_info=True)
            self.lost.set()
            return
        log.warning("serving again on %s after %.0f ms", self._address, 1000 * (loop.time() - began))
        self._on_restart(reason, peer)
