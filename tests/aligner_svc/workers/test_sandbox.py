"""A child that was taken over tries everything; each layer stops its part of it."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import aligner_svc
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.domain import Caller, WordStatus
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.workers import WorkerCrashedError, WorkerDiedError, log_sandbox
from aligner_svc.workers.pool import WorkerPool
from aligner_svc.workers.sandbox_landlock import version
from aligner_svc.workers.sandbox_seccomp import compile_filter
from aligner_svc.workers.sandbox_syscalls import ALLOWED, AUDIT_ARCHITECTURES, FATAL, MMAP, PRLIMIT64, TGKILL
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.waiting import eventually

SUPPORTED = sys.platform == "linux" and platform.machine() in AUDIT_ARCHITECTURES
pytestmark = pytest.mark.skipif(not SUPPORTED, reason="the sandbox is Linux's")
needs_landlock = pytest.mark.skipif(not SUPPORTED or isinstance(version(), str), reason="this kernel has no Landlock")

INTRUDER = r"""
import ctypes, errno, os, resource, socket, sys, threading, mmap
from aligner_svc.workers import Sandbox, sandbox, serve

libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"


def syscall(x86, arm, *arguments):
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    outcome = libc.syscall(ctypes.c_long(x86 if X86 else arm), *words)
    if outcome < 0:
        raise OSError(ctypes.get_errno(), "no")
    return outcome


def connect(family, kind, where):
    with socket.socket(family, kind) as s:
        s.connect(where)


def fork():
    if os.fork() == 0:
        os._exit(0)


def spin():
    resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
    while True:
        pass


def deeper():
    threading.Thread(target=lambda: None).start()


ATTEMPTS = {
    "nothing": lambda h: None,
    "read": lambda h: open(h["path"]).read(),
    "write": lambda h: open(h["path"], "w").write("x"),
    "create": lambda h: os.mkdir(h["path"] + ".new"),
    "remove": lambda h: os.unlink(h["path"]),
    "list": lambda h: os.listdir("/"),
    "stat": lambda h: os.stat(h["path"]),
    "environ": lambda h: open("/proc/self/environ").read(),
    "parents environ": lambda h: open(f"/proc/{h['victim']}/environ").read(),
    "tcp": lambda h: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", h["port"])),
    "udp": lambda h: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", h["port"])),
    "unix": lambda h: connect(socket.AF_UNIX, socket.SOCK_STREAM, h["unix"]),
    "abstract unix": lambda h: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + h["abstract"]),
    "socketpair": lambda h: socket.socketpair(),
    "pipe": lambda h: os.pipe(),
    "dup": lambda h: os.dup(1),
    "fork": lambda h: fork(),
    "thread": lambda h: deeper(),
    "exec": lambda h: os.execv("/bin/true", ["true"]),
    "ptrace": lambda h: syscall(101, 117, 16, h["victim"], 0, 0),
    "read a process": lambda h: syscall(310, 270, h["victim"], None, 0, None, 0, 0),
    "kill": lambda h: os.kill(h["victim"], 9),
    "kill a thread": lambda h: syscall(234, 131, h["victim"], h["victim"], 9),
    "io_uring": lambda h: syscall(425, 425, 1, ctypes.create_string_buffer(120)),
    "bpf": lambda h: syscall(321, 280, 0, None, 0),
    "keyctl": lambda h: syscall(250, 219, 0, -3, 0),
    "userfaultfd": lambda h: syscall(323, 282, 0),
    "mount": lambda h: syscall(165, 40, None, b"/", b"tmpfs", 0, None),
    "chroot": lambda h: os.chroot("/"),
    "code": lambda h: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "more descriptors": lambda h: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "more memory": lambda h: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2),
    "anothers limits": lambda h: resource.prlimit(h["victim"], resource.RLIMIT_CPU, (1, 1)),
    "memory": lambda h: bytearray(1 << 30),
    "spin": lambda h: spin(),
    "abort": lambda h: os.abort(),
}


def handle(header, payload):
    try:
        ATTEMPTS[header["try"]](header)
    except OSError as error:
        return {"stopped": errno.errorcode[error.errno]}, b""
    except (MemoryError, ValueError, RuntimeError) as error:
        return {"stopped": type(error).__name__}, b""
    return {"stopped": None}, b""


mode, layers = sys.argv[1], sys.argv[2].split(",")
if "seccomp" not in layers:
    sandbox.forbid_system_calls = lambda: "left out"
if "landlock" not in layers:
    sandbox.version = lambda: "left out"
if "rlimits" not in layers:
    sandbox.limit_resources = lambda: None
sandbox.limit_memory(256 << 20)
serve(handle, Sandbox(mode))
"""


class Surroundings:
    """What an intruder attacks: a file, a listening port and unix sockets, a process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "secret"
        self.file.write_text("secret")
        self.listeners = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        abstract = f"aligner-{os.getpid()}-{id(self)}"
        for listener, where in zip(self.listeners, [("127.0.0.1", 0), str(folder / "s"), f"\0{abstract}"], strict=True):
            listener.bind(where)
            listener.listen()
        self.victim = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
        self.header = {
            "path": str(self.file),
            "port": self.listeners[0].getsockname()[1],
            "unix": str(folder / "s"),
            "abstract": abstract,
            "victim": self.victim.pid,
        }

    @property
    def unharmed(self) -> bool:
        return self.file.read_text() == "secret" and not self.file.with_suffix(".new").exists() and self.victim.poll() is None

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for listener in self.listeners:
            listener.close()


@contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    around = Surroundings(folder)
    try:
        yield around
    finally:
        around.close()


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Surroundings]:
    with surroundings(tmp_path) as found:
        yield found


@pytest.fixture
def intruder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that makes the attempt in the header of a call."""
    (tmp_path / "intruder.py").write_text(INTRUDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(aligner_svc.__file__).parents[1])
    return "intruder"


@asynccontextmanager
async def running(module: str, layers: str, mode: str = "best-effort") -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(module, 1, args=(mode, layers), name="intruder")
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def attempt(pool: WorkerPool, what: str, around: Surroundings) -> object:
    """What stopped it; None if nothing did."""
    return (await pool.call({"try": what, **around.header})).header["stopped"]


KILLED = [
    *("tcp", "udp", "unix", "abstract unix", "socketpair", "fork", "thread", "exec", "ptrace", "read a process", "kill"),
    *("kill a thread", "io_uring", "bpf", "keyctl", "userfaultfd", "mount", "chroot"),
]
DENIED = [
    *("read", "write", "create", "remove", "list", "stat", "environ", "parents environ", "pipe", "dup", "code"),
    "anothers limits",
]


class TestEverything:
    """All layers, as in production."""

    async def test_calls_that_no_decoder_makes_kill_it_at_once(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "rlimits,landlock,seccomp") as pool:
            for count, what in enumerate(KILLED, 1):
                with pytest.raises(WorkerCrashedError, match="SIGSYS"):
                    await attempt(pool, what, around)
                assert pool.restarts == count, f"{what} is not tried on a second child"
            assert await attempt(pool, "nothing", around) is None
        assert around.unharmed

    async def test_denied_calls_leave_the_child_running(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "rlimits,landlock,seccomp") as pool:
            assert {what: await attempt(pool, what, around) for what in DENIED} == dict.fromkeys(DENIED, "EPERM")
            for what in ("more descriptors", "more memory"):
                assert await attempt(pool, what, around) in {"EPERM", "ValueError"}  # Python's own for "not allowed to raise"
            assert await attempt(pool, "memory", around) == "MemoryError"
            assert pool.restarts == 0
        assert around.unharmed

    async def test_a_child_that_only_computes_is_ended_by_its_limit(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "rlimits,landlock,seccomp") as pool:
            with pytest.raises(WorkerCrashedError, match="SIGXCPU"):
                await attempt(pool, "spin", around)
            assert pool.restarts == 1

    async def test_abort_ends_with_sigabrt(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "rlimits,landlock,seccomp") as pool:
            with pytest.raises(WorkerCrashedError, match="SIGABRT"):
                await attempt(pool, "abort", around)

    async def test_the_kernel_reports_the_same(self, intruder: str) -> None:
        async with running(intruder, "rlimits,landlock,seccomp") as pool:
            (pid,) = pool.pids
            status = status_of(pid)
            filters = filters_of(pid)
            limits = {name: resource.prlimit(pid, number) for name, number in LIMITS.items()}
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert filters == [1, 1], "the thread that watches the parent has the filter too"
        assert limits == {"CORE": (0, 0), "FSIZE": (0, 0), "NPROC": (0, 0), "NOFILE": (3, 3)}

    async def test_a_child_ends_with_its_parent(self, intruder: str) -> None:
        script = (
            "import asyncio\n"
            "from aligner_svc.workers.pool import WorkerPool\n"
            "async def main():\n"
            f"    pool = WorkerPool({intruder!r}, 1, args=('best-effort', 'rlimits,landlock,seccomp'), name='orphan')\n"
            "    await pool.start()\n"
            "    print(*pool.pids, flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:  # noqa: ASYNC220
            assert parent.stdout
            pid = int(parent.stdout.readline())
            parent.kill()
        await eventually(lambda: not alive(pid))


LIMITS = {name: getattr(resource, f"RLIMIT_{name}") for name in ("CORE", "FSIZE", "NPROC", "NOFILE")}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def filters_of(pid: int) -> list[int]:
    """One per thread: whether it has a filter."""
    return [(task / "status").read_text().count("Seccomp:\t2\n") for task in Path(f"/proc/{pid}/task").iterdir()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestOneLayer:
    """Each layer alone, because a kernel may lack the others."""

    async def test_limits(self, intruder: str, around: Surroundings) -> None:
        attempts = [
            "read",
            "write",
            "environ",
            "parents environ",
            "tcp",
            "udp",
            "unix",
            "abstract unix",
            "socketpair",
            "pipe",
            "dup",
        ]
        async with running(intruder, "rlimits") as pool:
            assert {what: await attempt(pool, what, around) for what in attempts} == dict.fromkeys(attempts, "EMFILE")
            assert await attempt(pool, "memory", around) == "MemoryError"
            # Not even root raises them again, having no capabilities left.
            assert await attempt(pool, "more descriptors", around) in {"EPERM", "ValueError"}
            assert await attempt(pool, "chroot", around) == "EPERM"
            if os.getuid():  # the kernel does not count root's
                assert [await attempt(pool, what, around) for what in ("fork", "thread")] == ["EAGAIN", "RuntimeError"]
        assert around.unharmed

    @needs_landlock
    async def test_landlock(self, intruder: str, around: Surroundings) -> None:
        abi = version()
        assert isinstance(abi, int)
        attempts = [
            "read",
            "write",
            "create",
            "remove",
            "list",
            "environ",
            "parents environ",
            "exec",
            *(["tcp"] if abi >= 4 else []),
        ]
        async with running(intruder, "landlock") as pool:
            assert {what: await attempt(pool, what, around) for what in attempts} == dict.fromkeys(attempts, "EACCES")
            for what in ["abstract unix", "kill", "kill a thread"] if abi >= 6 else []:
                assert await attempt(pool, what, around) == "EPERM"
            assert await attempt(pool, "ptrace", around) == "EPERM"
            assert pool.restarts == 0
        assert around.unharmed

    async def test_seccomp(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "seccomp") as pool:
            for what in KILLED:
                with pytest.raises(WorkerCrashedError, match="SIGSYS"):
                    await attempt(pool, what, around)
            assert {what: await attempt(pool, what, around) for what in DENIED} == dict.fromkeys(DENIED, "EPERM")
        assert around.unharmed

    async def test_without_any_layer_every_attempt_works(self, intruder: str, around: Surroundings) -> None:
        """Otherwise the other tests prove nothing."""
        able = ["read", "environ", "tcp", "udp", "unix", "abstract unix", "socketpair", "pipe", "fork", "thread", "code", "list"]
        async with running(intruder, "", mode="off") as pool:
            assert {what: await attempt(pool, what, around) for what in able} == dict.fromkeys(able)
            assert await attempt(pool, "kill", around) is None
            around.victim.wait()


class TestService:
    """The service's own children, with all that they load."""

    async def test_the_embedded_engine_aligns_in_it(self) -> None:
        decoder = Decoder(DecodeSettings(workers=1), Limits())
        engine = PocketSphinxEngine(EngineSettings(workers=1))
        try:
            await asyncio.gather(decoder.start(), engine.start())
            for pool in (decoder.pool, engine.short.pool):
                assert pool.greeting["missing"] == ({} if isinstance(version(), int) else {"landlock": version()})
            clip = (await decoder.decode(SPEECH, Encoding.CONTAINER)).clip
            tokens = await engine.tokenise(f"{TRANSCRIPT} zzyzx 1234 naïve", "en")
            result = await engine.align(clip, tokens, "en", Caller("test"))
            assert sum(span.status is WordStatus.ALIGNED for span in result.spans) > len(tokens) / 2
            assert engine.short.pool.restarts == decoder.pool.restarts == 0
        finally:
            await asyncio.gather(decoder.close(), engine.close())


class TestModes:
    async def test_the_layers_are_logged_in_one_line(self, intruder: str, caplog: pytest.LogCaptureFixture) -> None:
        async with running(intruder, "rlimits,seccomp") as pool:
            with caplog.at_level("INFO"):
                log_sandbox(pool)
        (line,) = (record.getMessage() for record in caplog.records if "sandbox" in record.getMessage())
        assert line == (
            "intruder sandbox: undumpable, no_new_privs, capabilities dropped, rlimits, seccomp; missing: landlock (left out)"
        )

    async def test_a_missing_required_layer_prevents_the_start(self, intruder: str) -> None:
        for left_out, layers in (("landlock", "rlimits,seccomp"), ("seccomp", "rlimits,landlock")):
            with pytest.raises(WorkerDiedError, match=f"the sandbox is required, but {left_out} is not available: left out"):
                async with running(intruder, layers, mode="required"):
                    pass

    async def test_off_keeps_the_resource_limits(self, intruder: str, around: Surroundings) -> None:
        async with running(intruder, "rlimits,landlock,seccomp", mode="off") as pool:
            assert pool.greeting == {"sandbox": ["rlimits"], "missing": {}}
            assert await attempt(pool, "read", around) == "EMFILE"


class TestFilter:
    """The filter, interpreted: the tests run on only one of its two machines."""

    @pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
    def test_every_call_gets_its_verdict(self, machine: str, column: int) -> None:
        def verdict(number: int, *arguments: int) -> str:
            return judge(compile_filter(machine, 4321), AUDIT_ARCHITECTURES[machine], number, arguments)

        assert {verdict(numbers[column]) for numbers in ALLOWED.values() if numbers[column] >= 0} == {"allow"}
        assert {verdict(numbers[column]) for numbers in FATAL.values() if numbers[column] >= 0} == {"kill"}
        assert {verdict(number) for number in (257, 56, 2, 79) if number not in numbers_of(column)} == {"EPERM"}
        assert [verdict(MMAP[column], 0, 4096, protection) for protection in (0, 3, 4, 7)] == ["allow", "allow", "EPERM", "EPERM"]
        assert verdict(TGKILL[column], 4321, 1, 6) == "allow"
        assert verdict(TGKILL[column], 1, 1, 6) == "kill"
        assert verdict(PRLIMIT64[column], 0, resource.RLIMIT_CPU) == "allow"
        assert verdict(PRLIMIT64[column], 0, resource.RLIMIT_AS) == "allow"
        assert verdict(PRLIMIT64[column], 0, resource.RLIMIT_NOFILE) == "EPERM"
        assert verdict(PRLIMIT64[column], 1, resource.RLIMIT_CPU) == "EPERM"

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_calls_of_another_machine_kill(self, machine: str) -> None:
        i386, x32_read = 0x40000003, 0x40000000
        assert judge(compile_filter(machine, 1), i386, 3, ()) == "kill"
        assert judge(compile_filter(machine, 1), AUDIT_ARCHITECTURES[machine], x32_read, ()) == "EPERM"

    def test_no_number_is_in_two_tables(self) -> None:
        for column in (0, 1):
            everything = [
                *(numbers[column] for table in (ALLOWED, FATAL) for numbers in table.values() if numbers[column] >= 0),
                *(numbers[column] for numbers in (MMAP, PRLIMIT64, TGKILL)),
            ]
            assert len(everything) == len(set(everything))


def numbers_of(column: int) -> set[int]:
    return {numbers[column] for table in (ALLOWED, FATAL) for numbers in table.values()}


def judge(code: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> str:
    """Run a filter as the kernel would."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *([0] * (6 - len(arguments))))
    program = list(struct.iter_unpack("=HBBI", code))
    at, accumulator = 0, 0
    step: dict[int, Callable[[int], int]] = {
        0x20: lambda k: struct.unpack_from("=I", data, k)[0],
        0x54: lambda k: accumulator & k,
    }
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x15:
            at += if_true if accumulator == value else if_false
        elif operation == 0x06:
            break
        else:
            accumulator = step[operation](value)
    return {0x7FFF0000: "allow", 0x80000000: "kill", 0x00050000 | errno.EPERM: "EPERM"}[value]
