"""The server's side of its Ray client: starts it, follows what it says of the cluster, and gives it calls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from aligner_svc.engines.ray_serve import wire
from aligner_svc.workers import Buffer, JsonValue, WorkerTimeoutError, WorkerUnavailableError
from aligner_svc.workers.frames import FrameError, FrameKind
from aligner_svc.workers.pool import Reply, WorkerPool

log = logging.getLogger(__name__)

_Answer: TypeAlias = tuple[dict[str, Any], bytes]

_CLIENT: Final = "aligner_svc.engines.ray_serve.client"
_PATIENCE: Final = 10.0
"""Seconds from the loss of the cluster in which calls wait for it; then they are refused at once until it is back."""
_TIMEOUT: Final = 120.0
"""Seconds for a call that has no deadline."""
_RECONNECT: Final = 0.1
_TRIES: Final = 3
"""Clients that one call may lose."""


class Link:
    """Use it on the event loop that ran `start`. Lanes (see engines/halves)."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        at_once: int,
        on_failed: Callable[[str | None], None],
        module: str = _CLIENT,
    ) -> None:
        """`arguments` and `environment` for the client; `on_failed` as in engines.base.Build."""
        self.at_once = at_once
        self._folder = tempfile.mkdtemp(prefix="aligner-ray-")  # 0700: who opens the socket may align
        self._path = str(Path(self._folder) / "socket")
        self.pool = WorkerPool(
            module,
            1,
            args=(self._path, *arguments),
            name="ray",
            hung_after=None,
            outage=_PATIENCE,
            blames_calls=False,
            environment=environment,
        )
        self._on_failed = on_failed
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[_Answer]] = {}
        self._numbers = itertools.count(1)
        self._serving = asyncio.Event()
        self._why = "it is connecting"
        self._lost_at = 0.0
        self._following: asyncio.Task[None] | None = None

    def lane(self, name: str) -> Lane:
        """See engines.halves.Lanes."""
        return Lane(self, name)

    @property
    def why_not(self) -> str | None:
        """Why no calls are served, for operators; None: they are."""
        return None if self._serving.is_set() else self._why

    async def start(self, timeout: float) -> bool:  # noqa: ASYNC109 - no error
        """Whether the cluster serves within `timeout` s. Raises WorkerDiedError."""
        self._lost_at = asyncio.get_running_loop().time()
        await self.pool.start()
        self._following = asyncio.get_running_loop().create_task(self._follow())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving.wait(), timeout)
        return self._serving.is_set()

    async def close(self) -> None:
        """Calls in flight raise WorkerUnavailableError. Idempotent."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self.pool.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def call(
        self, lane: str, header: Mapping[str, JsonValue], payload: Buffer, *, seconds: float | None, client: str
    ) -> Reply:
        """Have a replica answer, within `seconds`. If the client dies, another one is given the call.

        Raises AlignerError, as the replica refused it, WorkerUnavailableError without a cluster, WorkerTimeoutError.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        end = began + (_TIMEOUT if seconds is None else seconds)
        for _ in range(_TRIES):
            await self._wait_for_cluster(end)
            wanted: dict[str, JsonValue] = {"lane": lane, "client": client, "left": max(0.0, end - clock()), "header": header}
            try:
                async with asyncio.timeout_at(end):
                    answer, body = await self._exchange(wanted, payload)
            except ConnectionError:
                continue
            except TimeoutError:
                raise WorkerTimeoutError(f"ray: took longer than {end - began:.1f} s") from None
            if "refusal" in answer:
                raise wire.decode_refusal(answer["refusal"])
            if "lost" in answer:
                raise WorkerUnavailableError(f"ray: {answer['lost']}")
            busy = float(answer["busy"])
            return Reply(answer["header"], memoryview(body), max(0.0, clock() - began - busy), busy)
        raise WorkerUnavailableError(f"ray: the client was lost {_TRIES} times")

    async def _wait_for_cluster(self, end: float) -> None:
        if self._serving.is_set():
            return
        # Well before the caller's deadline: it should hear UNAVAILABLE, which says that another server may do it.
        now = asyncio.get_running_loop().time()
        until = min(self._lost_at + _PATIENCE, now + 0.8 * (end - now))
        try:
            async with asyncio.timeout_at(until):
                await self._serving.wait()
        except TimeoutError:
            raise WorkerUnavailableError(f"ray: {self._why}") from None

    async def _exchange(self, wanted: Mapping[str, JsonValue], payload: Buffer) -> _Answer:
        """Raises ConnectionError when the client goes away."""
        writer = self._writer
        if writer is None:
            raise ConnectionError
        number = next(self._numbers)
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            wire.send(writer, FrameKind.CALL, {"id": number, **wanted}, payload)
            await writer.drain()
            return await answer
        except asyncio.CancelledError:
            if self._writer is writer:
                wire.send(writer, FrameKind.FAILED, {"id": number})
            raise
        finally:
            self._answers.pop(number, None)

    async def _follow(self) -> None:
        """Read from one client after the other."""
        try:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, FrameError):
                    await self._read()
                self._lose("its client has ended")
                await asyncio.sleep(_RECONNECT)
        finally:
            self._why, self._lost_at = "it is closed", -math.inf  # no call waits any more
            self._serving.clear()
            self._fail_calls()

    async def _read(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        try:
            while True:
                kind, header, payload = await wire.receive(reader)
                if kind is FrameKind.READY:
                    self._hear(header.get("trouble"))
                elif (answer := self._answers.get(int(header["id"]))) is not None and not answer.done():
                    answer.set_result((header, payload))
        finally:
            self._writer.close()
            self._writer = None

    def _hear(self, trouble: str | None) -> None:
        """What the client says of the cluster."""
        if trouble is not None:
            self._not_serving(trouble)
        elif not self._serving.is_set():
            self._serving.set()
            log.info("the Ray cluster serves")
            self._on_failed(None)

    def _not_serving(self, why: str) -> None:
        if self._serving.is_set():
            self._serving.clear()
            self._lost_at = asyncio.get_running_loop().time()
            log.error("the Ray cluster does not serve: %s", why)
            self._on_failed(why)
        self._why = why

    def _lose(self, why: str) -> None:
        self._not_serving(why)
        self._fail_calls()

    def _fail_calls(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError())


class Lane:
    """CallPool (see engines/halves) of the calls of one kind."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name

    async def start(self) -> None:
        """Nothing: the link starts for all."""

    async def close(self) -> None:
        """Nothing."""

    async def call(
        self,
        header: Mapping[str, JsonValue],
        payload: Buffer = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as WorkerPool's
        client: str = "",
    ) -> Reply:
        """See Link.call."""
        return await self._link.call(self._name, header, payload, seconds=timeout, client=client)
