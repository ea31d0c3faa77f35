"""One child process as the parent sees it: its socket, its stderr, its death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aligner_svc.workers.child import FD_VARIABLE, enlarge_buffers
from aligner_svc.workers.errors import WorkerFailedError
from aligner_svc.workers.frames import (
    MAX_HEADER,
    PREFIX,
    Buffer,
    FrameError,
    FrameKind,
    JsonValue,
    allocate,
    pack,
    parse_header,
    parse_prefix,
)

_CHUNK: Final = 1 << 20
"""Bytes taken from the socket at a time: some 0.3 ms of the event loop."""

_TAIL: Final = 4096

# What a child needs of the environment. The rest stays behind: it may hold keys and passwords,
# and the child is the process that reads hostile files.
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ")

# One child is one core's worth of work; a BLAS that starts a thread per core in each of them only fights itself.
_ONE_THREAD: Final = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
        "MALLOC_ARENA_MAX",  # glibc's: an arena takes 64 MiB of the address space that a child is limited to
    ),
    "1",
)


class GoneError(Exception):
    """The child's end is closed, or what came from it is no frame: kill it."""


class WorkerProcess:
    """A running child. All methods belong to the event loop it was made on."""

    def __init__(self, module: str, args: Sequence[str], name: str) -> None:
        """Start `python -m module *args`; returns at once, `ready` waits for it.

        `subprocess` uses vfork + exec here (no preexec_fn), so none of gRPC's threads or locks
        are copied. The child gets a session of its own: what a terminal or a shell sends to
        the foreground group is for the parent, which drains before its children go.
        """
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._sock, theirs = socket.socketpair()
        self._stderr, writer = os.pipe()
        self._tail = bytearray()
        self._open = True
        try:
            enlarge_buffers(self._sock)
            self._sock.setblocking(False)
            os.set_blocking(self._stderr, False)
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                stdin=subprocess.DEVNULL,
                stdout=writer,  # whatever a library prints is diagnostics too
                stderr=writer,
                pass_fds=(theirs.fileno(),),
                env=_environment(theirs.fileno()),
                start_new_session=True,
            )
        except BaseException:
            self._sock.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
            os.close(writer)
        self.pid = self._process.pid
        self._loop.add_reader(self._stderr, self._drain_stderr)

    async def ready(self) -> dict[str, JsonValue]:
        """Wait until the child has loaded what it needs; what it says of itself. Raises GoneError."""
        kind, greeting, _ = await self._receive(0)
        if kind is not FrameKind.READY:
            raise GoneError("the first frame is not READY")
        return greeting

    async def exchange(
        self, header: Mapping[str, JsonValue], payload: Buffer, max_reply: int
    ) -> tuple[dict[str, JsonValue], memoryview]:
        """Send one call, wait for its answer. Raises GoneError, or WorkerFailedError if the handler raised."""
        head = pack(FrameKind.CALL, header, payload)
        try:
            await self._loop.sock_sendall(self._sock, head)
            await self._send_payload(memoryview(payload).cast("B"))
        except OSError:
            raise GoneError("the child closed its end") from None
        kind, answer, body = await self._receive(max_reply)
        if kind is FrameKind.FAILED:
            raise WorkerFailedError(self.name, _class_name(answer.get("error")))
        if kind is not FrameKind.REPLY:
            raise GoneError("the answer is not a REPLY")
        return answer, body

    async def _send_payload(self, view: memoryview) -> None:
        # In pieces: one send() of 100 MB does not return while the child keeps draining it, 150 ms measured.
        for start in range(0, view.nbytes, _CHUNK):
            await self._loop.sock_sendall(self._sock, view[start : start + _CHUNK])
            await asyncio.sleep(0)

    async def _receive(self, max_payload: int) -> tuple[FrameKind, dict[str, JsonValue], memoryview]:
        try:
            kind, header_bytes, payload_bytes = parse_prefix(await self._exactly(PREFIX.size), max_payload)
            header = parse_header(await self._exactly(min(header_bytes, MAX_HEADER)))
            return kind, header, await self._exactly(payload_bytes)
        except FrameError as error:
            raise GoneError(str(error)) from None
        except OSError:
            raise GoneError("the child closed its end") from None

    async def _exactly(self, size: int) -> memoryview:
        view = allocate(size)
        filled = 0
        while filled < size:
            count = await self._loop.sock_recv_into(self._sock, view[filled : filled + _CHUNK])
            if count == 0:
                raise GoneError("the child closed its end")
            filled += count
            # sock_recv_into does not yield while there is something to read, and a busy child sees to it that there is.
            await asyncio.sleep(0)
        return view.toreadonly()

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` if the idle child dies, or speaks without being asked."""
        self._loop.add_reader(self._sock, on_gone)

    def unwatch(self) -> None:
        if self._open:
            self._loop.remove_reader(self._sock)

    @property
    def exited(self) -> bool:
        return self._process.poll() is not None

    @property
    def fatal_signal(self) -> signal.Signals | None:
        """What ended the child, once it is reaped, if that was a signal."""
        status = self._process.returncode
        return signal.Signals(-status) if status is not None and status < 0 else None

    def take_tail(self) -> str:
        """The end of what the child wrote to stderr since the last time, for logs; control characters masked."""
        self._drain_stderr()
        text, self._tail = self._tail.decode(errors="replace"), bytearray()
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).strip()

    def hang_up(self) -> None:
        """Let the child see end of file: it exits by itself, and an exchange in flight ends in GoneError."""
        if self._open:
            with contextlib.suppress(OSError):  # it hung up first
                self._sock.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """SIGKILL, also to a child that is stopped or ignores everything else."""
        if not self.exited:
            self._process.kill()

    async def reap(self, patience: float) -> bool:
        """Close the descriptors and collect the exit status, so that no zombie stays. False: still alive after `patience` s."""
        self._close()
        pause, deadline = 0.001, self._loop.time() + patience
        # A few polls instead of a child watcher: asyncio's in 3.11 costs a thread for each child's whole life.
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
            except OSError:  # nothing there now
                return
            if not piece:
                self._loop.remove_reader(self._stderr)
                return
            self._tail = (self._tail + piece)[-_TAIL:]


def _environment(fd: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # The child imports what the parent would, from the same places, and nothing from a working directory that is not one.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - a str is what PYTHONPATH needs
    return kept | _ONE_THREAD | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", FD_VARIABLE: str(fd)}


def _class_name(value: JsonValue) -> str:
    """What the child says the exception was called, if it looks like a class name."""
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 80 else "an exception"
