"""One child process from the parent's side: its socket, its stderr, its exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from aligner_svc.workers import child, frames
from aligner_svc.workers.errors import WorkerFailedError
from aligner_svc.workers.frames import Buffer, FrameKind, JsonValue
from aligner_svc.workers.heartbeat import Pulse

_CHUNK: Final = 1 << 20
"""Bytes read or written at a time: some 0.3 ms of the event loop."""

_MAX_STDERR: Final = 4096
"""Bytes kept of a child's stderr, from its end."""

_MAX_REASON: Final = 1000
"""Characters kept of a child's reason not to start."""

_EXIT_TIMEOUT: Final = 1.0
"""Seconds a child has to exit by itself before it is killed."""

_REAP_TIMEOUT: Final = 5.0
"""Seconds for the kernel to end a killed child; one stuck in uninterruptible I/O is left to it."""

# Signals that the call itself causes. Not SIGKILL, which an operator sends, or the kernel when it is short of memory.
_CRASHES: Final = frozenset(
    ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGXCPU", "SIGXFSZ"),
)


class GoneError(Exception):
    """The child closed its end or broke the protocol: kill it."""


class BehindError(GoneError):
    """It did so at an earlier call, behind which this one waited."""


class ProtocolError(GoneError):
    """It sent something that is not an answer."""


class StartRefusedError(GoneError):
    """It said why it cannot start."""


class WorkerProcess:
    """A running child. Use it on the event loop that it was created on."""

    def __init__(self, module: str, args: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start `python -m module *args`; returns at once, `ready` waits for it. `environment` as in WorkerPool.

        `subprocess` uses vfork + exec here (no preexec_fn), so none of gRPC's threads or locks
        are copied. The child gets a process group of its own, so that signals to the foreground group
        reach only the parent, which drains before it ends its children. No session of its own: where
        the kernel groups processes by session (sched_autogroup), `nice` acts within a session only.
        """
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._sock, theirs = socket.socketpair()
        self._stderr, writer = os.pipe()
        self._tail = bytearray()
        self._open = True
        self._calls = 0
        self._at: dict[int, None] = {}
        self._sending, self._receiving = asyncio.Lock(), asyncio.Lock()
        self._torn = False
        self.counted_until = 0.0
        """By the event loop's clock, up to when its calls are counted as busy."""
        self.hung = ""
        """Why it was found to hang; "" if it was not."""
        self.ready_at = 0.0
        """By the event loop's clock."""
        self.place = ""
        """Where it works, as in WorkerPool."""
        try:
            child.enlarge_buffers(self._sock)
            self._sock.setblocking(False)
            os.set_blocking(self._stderr, False)
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                stdin=subprocess.DEVNULL,
                stdout=writer,  # what a library prints is diagnostics too
                stderr=writer,
                pass_fds=(theirs.fileno(),),
                env=child.environment(theirs.fileno(), environment),
                process_group=0,
            )
        except BaseException:
            self._sock.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
            os.close(writer)
        self.pid = self._process.pid
        self.pulse = Pulse(self.pid)
        self._loop.add_reader(self._stderr, self._drain_stderr)

    async def assign(self, place: str) -> None:
        """Send it to its place: what `receive_place` waits for. Raises GoneError."""
        self.place = place
        try:
            await self._loop.sock_sendall(self._sock, frames.pack(FrameKind.CALL, {"place": place}, b""))
        except OSError:
            raise GoneError("the child closed its end") from None

    async def ready(self) -> dict[str, JsonValue]:
        """Wait until the child is loaded; return its greeting. Raises GoneError."""
        kind, greeting, _ = await self._receive(0)
        if kind is FrameKind.FAILED:
            raise StartRefusedError("".join(c if c.isprintable() else "?" for c in str(greeting.get("error"))[:_MAX_REASON]))
        if kind is not FrameKind.READY:
            raise ProtocolError("the first frame is not READY")
        self.ready_at = self._loop.time()
        return greeting

    async def exchange(
        self, header: Mapping[str, JsonValue], payload: Buffer, max_reply: int
    ) -> tuple[dict[str, JsonValue], memoryview]:
        """Send one call and wait for its answer. Raises GoneError, or WorkerFailedError if the handler raised.

        A second one is sent while the child is at the first; the answers come in that order.
        """
        head = frames.pack(FrameKind.CALL, header, payload)
        self._calls += 1
        number = self._calls
        self._at[number] = None
        try:
            async with self._sending:
                with self._whole(number):
                    await self._send(head, payload)
            async with self._receiving:  # a lock wakes those that wait in the order in which they came
                with self._whole(number):
                    kind, answer, body = await self._receive(max_reply)
        finally:
            del self._at[number]
        return self._reply(kind, answer, body)

    @property
    def call(self) -> int:
        """Number of the call that it is at; 0: none."""
        return next(iter(self._at), 0)

    @property
    def calls(self) -> int:
        """How many it has been given and not answered."""
        return len(self._at)

    @contextlib.contextmanager
    def _whole(self, number: int) -> Iterator[None]:
        """Around a frame: after one that broke off nothing that comes can be understood."""
        if self._torn:
            raise BehindError("the child ended at an earlier call")
        try:
            yield
        except BaseException as error:
            self._torn = True
            if isinstance(error, GoneError) and self.call != number:
                raise BehindError(str(error)) from None
            raise

    async def _send(self, head: bytes, payload: Buffer) -> None:
        try:
            await self._loop.sock_sendall(self._sock, head)
            await self._send_payload(memoryview(payload).cast("B"))
        except OSError:
            raise GoneError("the child closed its end") from None

    def _reply(self, kind: FrameKind, answer: dict[str, JsonValue], body: memoryview) -> tuple[dict[str, JsonValue], memoryview]:
        if kind is FrameKind.FAILED:
            name = answer.get("error")
            is_name = isinstance(name, str) and name.isidentifier() and len(name) <= 80  # the child may send anything
            raise WorkerFailedError(self.name, str(name) if is_name else "an exception")
        if kind is not FrameKind.REPLY:
            raise ProtocolError("the answer is not a REPLY")
        return answer, body

    async def _send_payload(self, view: memoryview) -> None:
        # In pieces: one send() of 100 MB does not return while the child keeps reading, 150 ms measured.
        for start in range(0, view.nbytes, _CHUNK):
            await self._loop.sock_sendall(self._sock, view[start : start + _CHUNK])
            await asyncio.sleep(0)

    async def _receive(self, max_payload: int) -> tuple[FrameKind, dict[str, JsonValue], memoryview]:
        try:
            kind, header_bytes, payload_bytes = frames.parse_prefix(await self._exactly(frames.PREFIX.size), max_payload)
            header = frames.parse_header(await self._exactly(min(header_bytes, frames.MAX_HEADER)))
            return kind, header, await self._exactly(payload_bytes)
        except frames.FrameError as error:
            raise ProtocolError(str(error)) from None
        except OSError:
            raise GoneError("the child closed its end") from None

    async def _exactly(self, size: int) -> memoryview:
        view = frames.allocate(size)
        filled = 0
        while filled < size:
            count = await self._loop.sock_recv_into(self._sock, view[filled : filled + _CHUNK])
            if count == 0:
                raise GoneError("the child closed its end")
            filled += count
            # sock_recv_into does not yield while there is data, and the child may send without a pause.
            await asyncio.sleep(0)
        return view.toreadonly()

    def watch(self, on_gone: Callable[[], object]) -> None:
        """Call `on_gone` if the idle child dies or sends anything."""
        self._loop.add_reader(self._sock, on_gone)

    def unwatch(self) -> None:
        if self._open:
            self._loop.remove_reader(self._sock)

    @property
    def exited(self) -> bool:
        return self._process.poll() is not None

    @property
    def fatal_signal(self) -> str:
        """Name of the signal that ended the child; empty if there was none or it is not reaped yet."""
        status = self._process.returncode
        return signal.Signals(-status).name if status is not None and status < 0 else ""

    @property
    def crashed(self) -> bool:
        """Whether the call that it worked on ended the child."""
        return self.fatal_signal in _CRASHES

    @property
    def killed(self) -> bool:
        """Whether something other than its call ended the child: an operator, the kernel for lack of memory, its hanging."""
        return self.hung != "" or (self.fatal_signal != "" and not self.crashed)

    def take_tail(self) -> str:
        """The end of the child's stderr since the last call, for logs; control characters are masked."""
        self._drain_stderr()
        text, self._tail = self._tail.decode(errors="replace"), bytearray()
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).strip()

    def hang_up(self) -> None:
        """Send the child end of file: it exits by itself, and an exchange in flight raises GoneError."""
        if self._open:
            with contextlib.suppress(OSError):  # the child hung up first
                self._sock.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """Send SIGKILL, which also ends a child that is stopped or ignores other signals."""
        if not self.exited:
            self._process.kill()

    async def end(self) -> None:
        """Wait for the child to exit by itself, then kill it."""
        if not await self.reap(_EXIT_TIMEOUT):
            self.kill()
            await self.reap()

    async def reap(self, timeout: float = _REAP_TIMEOUT) -> bool:  # noqa: ASYNC109 - not an error
        """Close the descriptors and collect the exit status, which leaves no zombie. False if still alive after `timeout` s."""
        self.hang_up()  # calls that it still has end now
        async with self._sending, self._receiving:
            self._close()
        pause, deadline = 0.001, self._loop.time() + timeout
        # Polled: asyncio's child watcher in 3.11 costs a thread for each child's whole life.
        while not self.exited:
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        return True

    def _close(self) -> None:
        if self._open:
            self.unwatch()
            self._drain_stderr()
            self._open = False
            self._loop.remove_reader(self._stderr)
            self._sock.close()
            os.close(self._stderr)

    def _drain_stderr(self) -> None:
        while self._open:
            try:
                piece = os.read(self._stderr, 1 << 16)
            except OSError:  # nothing to read now
                return
            if not piece:
                self._loop.remove_reader(self._stderr)
                return
            self._tail = (self._tail + piece)[-_MAX_STDERR:]
