"""The child's side: report ready, answer calls one at a time, exit with the parent."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, Literal, NoReturn, TypeAlias

from aligner_svc.heap import return_unused
from aligner_svc.workers import frames
from aligner_svc.workers.frames import Buffer, FrameKind, JsonValue
from aligner_svc.workers.sandbox import Sandbox, forbid_core_dumps

Priority: TypeAlias = Literal["normal", "low"]

_LOW: Final = 10
"""Niceness of children with a low priority: they get a tenth of the time of a busy core that is shared with a normal one, and all
of an idle one. At 19 it would be a seventieth, and a window of 0.7 s would take longer than its timeout."""

_IDLE: Final = 250
"""Milliseconds without a call after which a child returns its free memory: 0.4 ms for a decoder, 1 to 9 ms for an aligner."""

FD_VARIABLE: Final = "WORKER_SOCKET_FD"
"""The environment variable with the descriptor of the child's end of the socketpair."""

# The variables a child gets. The others may be keys and passwords, and the child reads hostile files.
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ")

# A child uses one core: BLAS threads on every core in each child would only compete.
_ONE_THREAD: Final = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
        "MALLOC_ARENA_MAX",  # glibc's: an arena takes 64 MiB of a child's limited address space
    ),
    "1",
)

Turn: TypeAlias = Callable[[Mapping[str, JsonValue], Buffer], tuple[dict[str, JsonValue], memoryview]]
"""Answers the call in progress, and waits for the next."""

Handler: TypeAlias = Callable[[dict[str, JsonValue], memoryview], tuple[Mapping[str, JsonValue], Buffer]]


Work: TypeAlias = Callable[[], tuple[Mapping[str, JsonValue], Buffer]]
"""What is left of a call; returns the answer."""


class _ParentGoneError(Exception):
    """The parent closed its end."""


def attach() -> socket.socket:
    """The socket to the parent, with which this process ends from now on. For a child that takes long to load: call it first.

    Raises RuntimeError in a process that no `WorkerPool` started.
    """
    sock = _connect()
    _end_with_parent(sock)
    return sock


def receive_place(parent: socket.socket) -> str:
    """Wait until the parent says in which place this child works. A spare waits here; exits if the parent hangs up."""
    try:
        _, header_bytes, _ = frames.parse_prefix(_receive(parent, frames.PREFIX.size))
        return str(frames.parse_header(_receive(parent, header_bytes))["place"])
    except (_ParentGoneError, ConnectionError):
        sys.exit(0)


def refuse_start(parent: socket.socket, message: str) -> None:
    """Tell the parent in one line why this child cannot start. Then exit."""
    parent.sendall(frames.pack(FrameKind.FAILED, {"error": message}, b""))


def serve(
    handler: Handler,
    sandbox: Sandbox | None = None,
    priority: Priority = "normal",
    *,
    parent: socket.socket | None = None,
    greeting: Mapping[str, JsonValue] | None = None,
) -> None:
    """Answer the parent's calls until it hangs up. Call it when everything is loaded and warm.

    `parent`: from `attach`, if that was called. `greeting` goes to the parent. `sandbox` is closed first; the parent learns
    which layers are in force. `priority` "low" leaves the processor to the other processes of the service, whenever they want
    it. `handler(header, payload)` returns a header (JSON) and a payload; its own payload is valid during the call only. If it
    raises, the traceback goes to stderr (the parent's log) and only the class name to the caller.

    Raises RuntimeError in a process that no `WorkerPool` started, SandboxError (which ends the process) if the
    sandbox is required and incomplete.
    """
    with _serving(sandbox, priority, parent, greeting or {}) as sock:
        while True:
            _wait(sock)
            _answer(sock, handler)


def converse(
    handler: Callable[[dict[str, JsonValue], memoryview, Turn], tuple[Mapping[str, JsonValue], Buffer]],
    sandbox: Sandbox | None = None,
) -> None:
    """As `serve`, for one job of many calls: `handler` gets the first, the others by its `Turn`, and returns the last answer."""
    with _serving(sandbox, "normal", None, {}) as sock:

        def turn(header: Mapping[str, JsonValue], payload: Buffer) -> tuple[dict[str, JsonValue], memoryview]:
            sock.sendall(frames.pack(FrameKind.REPLY, header, payload))
            sock.sendall(memoryview(payload).cast("B"))
            return _call(sock)

        _answer(sock, lambda header, payload: handler(header, payload, turn))


def serve_prepared(
    prepare: Callable[[dict[str, JsonValue], memoryview], Work],
    *,
    parent: socket.socket | None = None,
    greeting: Mapping[str, JsonValue] | None = None,
) -> None:
    """As `serve`, for a pool that gives each child several calls at once: the next is received and prepared during one.

    `prepare`, with the arguments of a handler, runs on a thread of its own. It returns what is left to do, which
    runs on this one.
    """
    with _serving(None, "normal", parent, greeting or {}) as sock:
        calls: SimpleQueue[Work | None] = SimpleQueue()

        def receive() -> None:
            with suppress(_ParentGoneError, ConnectionError):
                while True:
                    calls.put(_prepared(sock, prepare))
            calls.put(None)

        threading.Thread(target=receive, name="prepare", daemon=True).start()
        while _answer_next(sock, calls):
            pass


def _prepared(sock: socket.socket, prepare: Callable[[dict[str, JsonValue], memoryview], Work]) -> Work:
    header, payload = _call(sock)
    try:
        return prepare(header, payload)
    except Exception as error:
        return partial(_fail, error)


def _fail(error: Exception) -> NoReturn:
    raise error


def _answer_next(sock: socket.socket, calls: SimpleQueue[Work | None]) -> bool:
    """A function of its own, as `_answer`. False after the last call."""
    try:
        work = calls.get(timeout=_IDLE / 1000)
    except Empty:
        return_unused()
        work = calls.get()
    if work is not None:
        _send_answer(sock, work)
    return work is not None


@contextmanager
def _serving(
    sandbox: Sandbox | None, priority: Priority, parent: socket.socket | None, greeting: Mapping[str, JsonValue]
) -> Iterator[socket.socket]:
    if priority == "low":
        os.nice(_LOW)
    with parent or _connect() as sock:
        if sandbox:
            sandbox.fence()
        if parent is None:
            _end_with_parent(sock)
        if sandbox:
            sandbox.seal()
        layers: dict[str, JsonValue] = {"sandbox": sandbox.in_force, "missing": sandbox.missing} if sandbox else {}
        with suppress(_ParentGoneError, ConnectionError):
            sock.sendall(frames.pack(FrameKind.READY, {**greeting, **layers}, b""))
            yield sock


def _connect() -> socket.socket:
    number = os.environ.pop(FD_VARIABLE, "")
    if not number:
        raise RuntimeError("this module is started by aligner_svc.workers.pool.WorkerPool, not by hand")
    # The parent ends its children: ctrl-C reaches a whole process group, and systemd sends SIGTERM
    # to a whole cgroup, whatever the session, while the parent still drains calls.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forbid_core_dumps()  # with any sandbox, and with none
    sock = socket.socket(fileno=int(number))
    sock.set_inheritable(False)
    enlarge_buffers(sock)
    return sock


def _end_with_parent(sock: socket.socket) -> None:
    threading.Thread(target=_exit_with_parent, args=(sock.fileno(),), name="parent-watch", daemon=True).start()


def _wait(sock: socket.socket) -> None:
    """Until the next call; what the last ones took of the memory is returned if it does not come soon."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(_IDLE):
        return_unused()


def _answer(sock: socket.socket, handler: Handler) -> None:
    """Answer one call. A function of its own, so that the buffers of one call are freed before the next."""
    header, payload = _call(sock)
    _send_answer(sock, lambda: handler(header, payload))


def _send_answer(sock: socket.socket, work: Work) -> None:
    try:
        reply_header, reply_payload = work()
        head = frames.pack(FrameKind.REPLY, reply_header, reply_payload)
    except (_ParentGoneError, ConnectionError):
        raise
    except Exception as error:  # a bug in the handler; the parent logs and reports it
        traceback.print_exc()
        sys.stderr.flush()
        sock.sendall(frames.pack(FrameKind.FAILED, {"error": type(error).__name__}, b""))
        return
    sock.sendall(head)
    sock.sendall(memoryview(reply_payload).cast("B"))


def _call(sock: socket.socket) -> tuple[dict[str, JsonValue], memoryview]:
    _, header_bytes, payload_bytes = frames.parse_prefix(_receive(sock, frames.PREFIX.size))
    return frames.parse_header(_receive(sock, header_bytes)), _receive(sock, payload_bytes)


def _receive(sock: socket.socket, size: int) -> memoryview:
    view = frames.allocate(size)
    filled = 0
    while filled < size:
        count = sock.recv_into(view[filled:])
        if count == 0:
            raise _ParentGoneError
        filled += count
    return view


def _exit_with_parent(fd: int) -> None:
    """End the process when the parent hangs up, even in the middle of a call."""
    poll = select.poll()
    poll.register(fd, 0)  # no events: only a hang-up or an error ends the poll
    poll.poll()
    os._exit(0)


def environment(fd: int, more: Mapping[str, str] | None) -> dict[str, str]:
    """Of a child with that descriptor: a few variables that all get, and `more`; None: those for one thread."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # The child imports from the same places as the parent: from the working directory only if the parent does.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - a str is what PYTHONPATH needs
    return kept | dict(_ONE_THREAD if more is None else more) | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", FD_VARIABLE: str(fd)}


def enlarge_buffers(sock: socket.socket) -> None:
    """Request large kernel buffers: fewer wake-ups for a large payload."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, frames.SOCKET_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, frames.SOCKET_BUFFER)
