"""The Ray client, `python -m ...ray_serve.client SOCKET ADDRESS APPLICATION`, a child process of the server, started by Link.

In a process of its own because Ray ends the process that it is in when it loses its node, or the head for a minute. Until then
its calls hang without an error: `_watch` finds that out, tells the server, and ends this process itself if it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from aligner_svc.engines.ray_serve import wire
from aligner_svc.workers import attach, refuse_start, serve
from aligner_svc.workers.frames import FrameKind

_GIVE_UP: Final = 4.0
"""Seconds without any answer from a replica, after which this process ends: the next one may find a new head."""
_CONNECT_TIMEOUT: Final = 60.0
"""Seconds from the first sight of a head to an answer from a replica, which may have to start."""
_HEAD_EVERY: Final = 0.25
_PAUSE: Final = (0.05, 1.0)
"""Seconds before a call is given to another replica: the first time, and at most."""


class Cluster:
    """The handle of the application's replicas."""

    probe_seconds = 3.0
    """For an answer to a probe, which takes 2 to 20 ms; on a machine that is overloaded some hundred."""
    probe_every = 1.0
    """Seconds without an answer to any call, after which there is a probe."""

    def __init__(self, address: str, application: str) -> None:
        self.address = address
        self._application = application
        self._handle: Any = None
        self._retried: tuple[type[BaseException], ...] = ()
        self.heard_at = 0.0
        """When a replica answered last, by time.monotonic."""

    def connect(self) -> None:
        """Blocks until the application is there. Raises any exception of Ray's."""
        import ray  # noqa: PLC0415
        import ray.exceptions as lost  # noqa: PLC0415
        from ray import serve as ray_serve  # noqa: PLC0415
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415

        self._retried = (
            lost.ActorDiedError,
            lost.ActorUnavailableError,
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.ObjectLostError,
        )
        host, _, port = self.address.rpartition(":")
        while not _reachable(host.strip("[]"), int(port)):
            time.sleep(_HEAD_EVERY)
        timer = threading.Timer(_CONNECT_TIMEOUT, _end, ("it could not connect in time",))
        timer.start()
        ray.init(address=self.address, namespace="serve", log_to_driver=False, logging_level="error")
        while self._handle is None:
            try:
                handle = ray_serve.get_app_handle(self._application)
            except RayServeException:
                time.sleep(_HEAD_EVERY)
            else:
                self._handle = handle
        timer.cancel()

    def open(self) -> None:
        """Begin to route, on the event loop that makes the calls; after `connect`."""
        # Over gRPC, not over actor calls: 5 ms less for 160 kB.
        self._handle = self._handle.options(_by_reference=False)

    async def call(self, lane: str, header: dict[str, Any], payload: bytes, client: str, left: float) -> tuple[Any, ...]:
        """What Replica.call returns. A replica that dies loses nothing: aligning has no side effects, another one does it.

        Raises TimeoutError after `left` s, and what Ray raises for a bug.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + left
        pause, longest = _PAUSE
        while True:
            response = self._handle.call.remote(lane, header, payload, client, end - loop.time())
            try:
                async with asyncio.timeout_at(end):
                    answer: tuple[Any, ...] = await response
            except BaseException as error:
                response.cancel()  # its end here is not noticed there
                lost = isinstance(error, self._retried) or _is_unavailable(error)
                if not lost or loop.time() + pause >= end:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                self.heard_at = time.monotonic()
                return answer

    async def probe(self) -> None:
        """Raises TimeoutError if no replica answers."""
        async with asyncio.timeout(self.probe_seconds):
            await self.call("", {}, b"", "", self.probe_seconds)


class Client:
    """Serves one connection, that of the server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._trouble: str | None = "it is connecting"

    async def run(self, listening: socket.socket) -> NoReturn:
        self._trouble = f"no cluster at {self._cluster.address}"
        await asyncio.start_unix_server(self._serve, sock=listening)
        await asyncio.to_thread(self._cluster.connect)
        self._cluster.open()
        await self._watch()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        wire.send(writer, FrameKind.READY, {"trouble": self._trouble})
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, header, payload = await wire.receive(reader)
                number = int(header["id"])
                if kind is FrameKind.CALL:
                    self._calls[number] = task = asyncio.create_task(self._answer(writer, number, header, payload))
                    task.add_done_callback(partial(self._forget, number))
                elif running := self._calls.get(number):
                    running.cancel()

    def _forget(self, number: int, _task: asyncio.Task[None]) -> None:
        self._calls.pop(number, None)

    async def _answer(self, writer: asyncio.StreamWriter, number: int, header: dict[str, Any], payload: bytes) -> None:
        body = b""
        try:
            answer = await self._cluster.call(header["lane"], header["header"], payload, header["client"], header["left"])
        except Exception as error:
            reply: dict[str, Any] = {"lost": type(error).__name__}
            print(f"a call was lost: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True)
        else:
            if answer[0] == "refusal":
                reply = {"refusal": answer[1]}
            else:
                _, inner, body, busy = answer
                reply = {"header": inner, "busy": busy}
        wire.send(writer, FrameKind.REPLY, {"id": number, **reply}, body)
        await writer.drain()

    async def _watch(self) -> NoReturn:
        """Report to the server whether replicas answer."""
        self._cluster.heard_at = time.monotonic()
        timeout = _CONNECT_TIMEOUT
        while True:
            before = time.monotonic()
            try:
                if before - self._cluster.heard_at >= self._cluster.probe_every or self._trouble is not None:
                    await self._cluster.probe()
            except Exception as error:
                silent = time.monotonic() - self._cluster.heard_at
                if self._cluster.heard_at < before:
                    self._report(f"no replica answers ({type(error).__name__})")
                if silent > timeout:
                    _end(f"no replica answered for {silent:.1f} s")
            else:
                self._report(None)
                timeout = _GIVE_UP
            await asyncio.sleep(self._cluster.probe_every)

    def _report(self, trouble: str | None) -> None:
        if trouble != self._trouble and self._writer is not None:
            wire.send(self._writer, FrameKind.READY, {"trouble": trouble})
        self._trouble = trouble


def _is_unavailable(error: BaseException) -> bool:
    """Whether it is gRPC's for a replica that is not reached."""
    code = getattr(error, "code", None)
    return type(error).__name__ == "AioRpcError" and code is not None and code().name == "UNAVAILABLE"


def _reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _end(why: str) -> NoReturn:
    """At once: Ray's destructors may wait for a cluster that is gone."""
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def _run(listening: socket.socket, cluster: Cluster) -> None:
    try:
        asyncio.run(Client(cluster).run(listening))
    except BaseException as error:
        _end(f"{type(error).__name__}: {str(error)[:500]}")


def main(path: str, address: str, application: str) -> None:
    parent = attach()
    try:
        import ray  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        refuse_start(parent, "the engine ray needs ray, which is not installed: pip install 'aligner-svc[ray]'")
        sys.exit(1)
    listen(parent, path, Cluster(address, application))


def listen(parent: socket.socket, path: str, cluster: Cluster) -> None:
    """Serve the parent until it hangs up."""
    Path(path).unlink(missing_ok=True)  # that of the client before
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    # Not on the main thread, where Ray replaces the handler of SIGTERM.
    threading.Thread(target=_run, args=(listening, cluster), name="ray-client", daemon=True).start()
    serve(lambda _header, _payload: ({}, b""), parent=parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
