"""Children die, hang and break the protocol; callers get their answer or a clear error, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

import aligner_svc
from aligner_svc.workers import (
    WorkerCrashedError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerKilledError,
    WorkerRefusedError,
    WorkerTimeoutError,
    WorkerUnavailableError,
    heartbeat,
    pool,
)
from aligner_svc.workers.pool import WorkerPool
from tests.kit.waiting import eventually

CHILD = """
import os, signal, threading
from pathlib import Path
from aligner_svc.workers import serve


def handle(header, payload):
    op = header.get("op", "echo")
    if op == "pid":
        return {"pid": os.getpid()}, b""
    if op == "env":
        return {"names": sorted(os.environ), "threads": os.environ["OMP_NUM_THREADS"]}, b""
    if op == "die":
        os.kill(os.getpid(), header.get("signal", signal.SIGKILL))
    if op == "die_once":
        flag = Path(header["flag"])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if op == "exit":
        os._exit(3)
    if op == "spin":
        while True:
            pass
    if op == "stop":
        stop(header, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    if op == "deadlock":
        lock = threading.Lock()
        lock.acquire()
        stop(header, lock.acquire)
    if op == "raise":
        raise LookupError("text of the payload: secret")
    if op == "hold":  # reports that it began, and waits until the other end of the FIFO is opened
        Path(header["gate"]).with_suffix(".began").write_text(str(os.getpid()))
        os.open(header["gate"], os.O_RDONLY)
    if op == "take":  # blocks of the heap, of which the last is kept
        blocks = [b"x" * 16_000 for _ in range(header["blocks"])]
        KEPT.append(blocks[-1])
        return {"resident": int(Path("/proc/self/statm").read_text().split()[1])}, b""
    if op == "babble":
        os.write(SOCKET, bytes(header["bytes"]))
        signal.pause()
    return {"echo": header}, payload


def stop(header, how):  # in the first child only, if there is a flag
    flag = Path(header.get("flag", "/nowhere"))
    if not flag.exists():
        if "flag" in header:
            flag.touch()
        how()


KEPT = []
SOCKET = int(os.environ["WORKER_SOCKET_FD"])
serve(handle)
"""


AHEAD = CHILD.replace("import serve", "import serve_prepared").replace(
    "serve(handle)",
    """
def prepare(header, payload):
    if "prepared" in header:
        Path(header["prepared"]).touch()
    if header.get("op") == "unprepared":
        raise LookupError
    if header.get("op") == "exit_prepared":
        os._exit(3)
    return lambda: handle(header, bytes(payload))

serve_prepared(prepare)
""",
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that children import from; `child` is in it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(Path(aligner_svc.__file__).parents[1])
    return folder


DIES_READY = """
from aligner_svc.workers import child

def die(sock):
    os._exit(0)

child._wait = die
serve(None)
"""


class Gate:
    """Holds a call until it is opened; `flag` is a file that a child creates."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.flag = str(path.with_suffix(".flag"))
        self.began = path.with_suffix(".began")
        self.writer = -1

    def open(self) -> None:
        self.writer = os.open(self.path, os.O_RDWR)

    def close(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)

    async def begun(self) -> int:
        """Wait for the held call to be running; the pid of its child."""
        await eventually(lambda: self.began.exists() and self.began.read_text() != "")
        return int(self.began.read_text())


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path / "gate")) as gate:
        yield gate


@pytest.fixture
def other_gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path / "other")) as gate:
        yield gate


@asynccontextmanager
async def running(
    size: int, module: str = "child", hung_after: float | None = None, *, on_demand: bool = False
) -> AsyncIterator[WorkerPool]:
    workers = WorkerPool(module, size, name="test", hung_after=hung_after, on_demand=on_demand)
    await workers.start()
    try:
        yield workers
    finally:
        await workers.close()


def kill_unseen(pid: int) -> None:
    """Kill a child and wait for its death without letting the event loop handle it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def resident_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def state(pid: int) -> str:
    """The letter of the process's state, "" when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.usefixtures("modules")
class TestCalls:
    async def test_what_a_large_call_took_of_the_memory_is_returned(self) -> None:
        async with running(1) as workers:
            (pid,) = workers.pids
            before = resident_pages(pid)
            reply = await workers.call({"op": "take", "blocks": 4000})
            assert reply.header["resident"] - before > 15_000
            await eventually(lambda: resident_pages(pid) - before < 1_500)

    async def test_header_and_payload_come_back_whole(self) -> None:
        payload = os.urandom(1 << 20) * 8
        async with running(1) as workers:
            reply = await workers.call({"text": "größe", "list": [1, 2.5, None, True]}, payload)
            assert reply.header == {"echo": {"text": "größe", "list": [1, 2.5, None, True]}}
            assert reply.payload == payload
            assert (await workers.call({})).payload == b""
            assert reply.queued >= 0
            assert reply.busy > 0

    async def test_items_wider_than_a_byte_are_sent_as_bytes(self) -> None:
        samples = memoryview(os.urandom(3 << 20)).cast("h")
        async with running(1) as workers:
            assert (await workers.call({}, samples)).payload == samples.cast("B")

    async def test_calls_are_served_in_the_order_they_came(self, gate: Gate) -> None:
        async with running(1) as workers:
            order: list[int] = []

            async def call(number: int) -> None:
                await workers.call({"n": number})
                order.append(number)

            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            queued = [asyncio.create_task(call(n)) for n in range(5)]
            await eventually(lambda: workers.waiting == 5)
            gate.open()
            await asyncio.gather(held, *queued)
            assert order == [0, 1, 2, 3, 4]
            assert workers.waiting == 0

    async def test_clients_that_wait_take_turns_however_many_calls_each_has(self, gate: Gate) -> None:
        async with running(1) as workers:
            order: list[str] = []

            async def call(client: str) -> None:
                await workers.call({}, b"four", client=client)
                order.append(client)

            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}, client="greedy"))
            await gate.begun()
            queued = [asyncio.create_task(call(client)) for client in (*["greedy"] * 5, "modest", "other", "modest")]
            await eventually(lambda: workers.waiting == len(queued))
            gate.open()
            await asyncio.gather(held, *queued)
            assert sorted(order[:3]) == ["greedy", "modest", "other"]
            assert order[3:5].count("modest") == 1
            assert order[5:] == ["greedy"] * 3

    async def test_low_priority_holds_in_the_processes_of_one_session(self, modules: Path) -> None:
        (modules / "humble.py").write_text(CHILD.replace("serve(handle)", 'serve(handle, priority="low")'))
        async with running(1) as workers, running(1, "humble") as humble:
            (pid,), (humble_pid,) = workers.pids, humble.pids
            assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, humble_pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
            assert os.getsid(pid) == os.getsid(humble_pid) == os.getsid(0)  # niceness compares within a session
            assert os.getpgid(pid) != os.getpgid(0)  # ctrl-C reaches the parent alone

    async def test_a_handler_that_raises_reports_its_class_and_lives_on(self) -> None:
        async with running(1) as workers:
            before = workers.pids
            with pytest.raises(WorkerFailedError) as caught:
                await workers.call({"op": "raise"})
            assert caught.value.class_name == "LookupError"
            assert "secret" not in str(caught.value)
            assert (await workers.call({})).header == {"echo": {}}
            assert workers.pids == before
            assert workers.restarts == 0

    async def test_a_header_that_is_no_json_leaves_the_child_running(self) -> None:
        async with running(1) as workers:
            with pytest.raises(ValueError, match="JSON"):
                await workers.call({"x": float("nan")})
            assert (await workers.call({})).header == {"echo": {}}
            assert workers.restarts == 0

    async def test_the_parents_settings_are_not_in_the_childs_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALIGNER_AUTH__PEPPER", "secret")
        async with running(1) as workers:
            reply = await workers.call({"op": "env"})
            names = reply.header["names"]
            assert isinstance(names, list)
            assert "ALIGNER_AUTH__PEPPER" not in names
            assert reply.header["threads"] == "1"


@pytest.mark.usefixtures("modules")
class TestDeath:
    async def test_a_killed_childs_call_is_answered_by_another(self, gate: Gate, other_gate: Gate) -> None:
        async with running(2) as workers:
            victim = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path, "who": "victim"}))
            bystander = asyncio.create_task(workers.call({"op": "hold", "gate": other_gate.path, "who": "bystander"}))
            pid, other_pid = await gate.begun(), await other_gate.begun()
            os.kill(pid, signal.SIGKILL)
            gate.open()  # for the second try
            other_gate.open()
            assert (await victim).payload == b""
            assert (await bystander).header["echo"]["who"] == "bystander"  # type: ignore[index,call-overload]
            await eventually(lambda: len(workers.pids) == 2)
            assert other_pid in workers.pids
            assert pid not in workers.pids

    async def test_one_death_is_retried(self, gate: Gate) -> None:
        async with running(1) as workers:
            reply = await workers.call({"op": "die_once", "flag": gate.flag}, b"payload")
            assert reply.payload == b"payload"
            assert workers.restarts == 1

    @pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGSYS", "SIGXCPU"])
    async def test_a_call_that_crashes_its_child_is_not_tried_on_another(self, name: str, gate: Gate) -> None:
        async with running(2) as workers:
            bystander = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            with pytest.raises(WorkerCrashedError, match=name):
                await workers.call({"op": "die", "signal": signal.Signals[name]})
            assert workers.restarts == 1
            gate.open()
            await bystander
            assert (await workers.call({})).header == {"echo": {}}
            assert workers.restarts == 1

    async def test_the_signal_that_ended_a_child_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running(1) as workers:
            with pytest.raises(WorkerCrashedError):
                await workers.call({"op": "die", "signal": signal.SIGSEGV})
        assert "replaced: the child closed its end (SIGSEGV)" in caplog.text

    @pytest.mark.parametrize("name", ["SIGKILL", "SIGUSR1"])
    async def test_two_kills_are_not_the_calls_fault_and_the_pool_recovers(self, name: str) -> None:
        async with running(2) as workers:
            with pytest.raises(WorkerKilledError):
                await workers.call({"op": "die", "signal": signal.Signals[name]})
            assert workers.restarts == 2
            await eventually(lambda: len(workers.pids) == 2)
            assert (await workers.call({})).header == {"echo": {}}

    async def test_a_child_that_exits_at_the_same_call_twice_was_not_killed(self) -> None:
        async with running(1) as workers:
            with pytest.raises(WorkerDiedError) as caught:
                await workers.call({"op": "exit"})
            assert not isinstance(caught.value, WorkerKilledError)

    async def test_a_retry_goes_before_later_calls(self, gate: Gate) -> None:
        async with running(1) as workers:
            order: list[str] = []

            async def call(who: str, **header: str) -> None:
                await workers.call(header)
                order.append(who)

            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            first = asyncio.create_task(call("first", op="die_once", flag=gate.flag))
            second = asyncio.create_task(call("second"))
            await eventually(lambda: workers.waiting == 2)
            gate.open()
            await asyncio.gather(held, first, second)
            assert order == ["first", "second"]

    async def test_a_child_that_dies_idle_is_replaced(self) -> None:
        async with running(1) as workers:
            (pid,) = workers.pids
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: workers.restarts == 1 and len(workers.pids) == 1)
            assert workers.pids != [pid]
            assert state(pid) in {"", "Z"}

    async def test_a_call_right_after_an_idle_death_keeps_its_retry(self, gate: Gate) -> None:
        async with running(1) as workers:
            (pid,) = workers.pids
            kill_unseen(pid)
            assert (await workers.call({"op": "die_once", "flag": gate.flag})).header
            assert workers.restarts == 2

    @pytest.mark.parametrize(
        "bytes_",
        [
            b"\xff" * 13,  # no such kind
            b"\x03\xff\xff\xff\xff" + b"\x00" * 8,  # a header of 4 GiB
            b"\x03\x00\x00\x00\x02" + b"\x7f" * 8 + b"{}",  # a payload of 8 EiB
            b"\x03\x00\x00\x00\x02" + b"\x00" * 8 + b"[]",  # not an object
            b"\x03\x00\x00\x00\x07" + b"\x00" * 8 + b'{"a":x}',  # not JSON
            b"\x03\x00\x01\x00\x00" + b"\x00" * 8 + b"[" * 65536,  # nested beyond the parser
            b"\x01\x00\x00\x00\x02" + b"\x00" * 8 + b"{}",  # READY is no answer
        ],
    )
    async def test_a_child_that_breaks_the_protocol_counts_as_dead(self, bytes_: bytes) -> None:
        async with running(1) as workers:
            with pytest.raises(WorkerDiedError) as caught:
                await workers.call({"op": "babble", "bytes": list(bytes_)})
            assert not isinstance(caught.value, WorkerKilledError)
            assert workers.restarts == 2


@pytest.mark.usefixtures("modules")
class TestTimeoutAndCancel:
    async def test_a_timeout_kills_the_child_and_is_not_retried(self, gate: Gate) -> None:
        async with running(1) as workers:
            call = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}, timeout=0.2))
            with pytest.raises(WorkerTimeoutError):
                await call
            assert workers.restarts == 1
            assert (await workers.call({})).header == {"echo": {}}

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    async def test_a_timeout_says_whether_the_child_had_the_processor(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(1) as workers:
            with pytest.raises(WorkerTimeoutError) as caught:
                await workers.call({"op": "hold", "gate": gate.path}, timeout=0.2)
            assert caught.value.starved
            used = iter([1.0, 1.2])
            monkeypatch.setattr(pool, "cpu_seconds", lambda pid: next(used))
            with pytest.raises(WorkerTimeoutError) as caught:
                await workers.call({"op": "hold", "gate": gate.path}, timeout=0.2)
            assert not caught.value.starved

    async def test_a_call_cancelled_while_waiting_leaves_the_queue(self, gate: Gate) -> None:
        async with running(1) as workers:
            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            waiting = asyncio.create_task(workers.call({}))
            await eventually(lambda: workers.waiting == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert workers.waiting == 0
            gate.open()
            await held
            assert (await workers.call({})).header == {"echo": {}}

    async def test_a_call_cancelled_when_it_gets_a_child_releases_it(self, gate: Gate) -> None:
        async with running(1) as workers:
            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            waiting = asyncio.create_task(workers.call({}))
            await eventually(lambda: workers.waiting == 1)
            held.add_done_callback(lambda _: waiting.cancel())
            gate.open()
            await held
            await asyncio.gather(waiting, return_exceptions=True)
            assert (await workers.call({})).header == {"echo": {}}
            assert workers.restarts == 0

    async def test_a_child_finishes_a_cancelled_call_and_is_used_again(self, gate: Gate) -> None:
        async with running(1) as workers:
            running_call = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            running_call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running_call
            following = asyncio.create_task(workers.call({"op": "pid"}))
            await eventually(lambda: workers.waiting == 1)
            gate.open()
            assert (await following).header["pid"] in workers.pids
            assert workers.restarts == 0

    async def test_a_child_too_long_on_a_cancelled_call_is_replaced(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "_CANCEL_TIMEOUT", 0.05)
        async with running(1) as workers:
            running_call = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            running_call.cancel()
            assert (await workers.call({})).header == {"echo": {}}
            assert workers.restarts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.usefixtures("modules")
class TestHeartbeat:
    @pytest.mark.parametrize("op", ["stop", "deadlock"])
    async def test_the_call_of_a_child_that_hangs_is_answered_by_another(
        self, op: str, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(2, hung_after=0.5) as workers:
            reply = await workers.call({"op": op, "flag": gate.flag}, b"payload", timeout=60)
            assert reply.payload == b"payload"
            assert workers.restarts == 1
        assert {"stop": "replaced: stopped", "deadlock": "replaced: no progress for"}[op] in caplog.text

    @pytest.mark.parametrize("op", ["stop", "deadlock"])
    async def test_a_call_that_hangs_in_two_children_is_not_at_fault(self, op: str) -> None:
        async with running(1, hung_after=0.5) as workers:
            with pytest.raises(WorkerKilledError):
                await workers.call({"op": op}, timeout=60)
            assert workers.restarts == 2
            assert (await workers.call({})).header == {"echo": {}}

    async def test_an_idle_child_that_is_stopped_is_replaced(self) -> None:
        async with running(2) as workers:
            stopped = workers.pids
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: len(workers.pids) == 2 and not set(workers.pids) & set(stopped))
            assert [state(pid) for pid in stopped] == ["", ""]
            assert workers.restarts == 2

    async def test_a_child_that_is_stopped_while_it_starts_is_replaced(self, modules: Path) -> None:
        async with running(1) as workers:
            begun = modules / "begun"
            code = f"import os; open({str(begun)!r}, 'w').write(str(os.getpid())); os.kill(os.getpid(), 19)"
            (modules / "child.py").write_text(code)
            os.kill(workers.pids[0], signal.SIGKILL)
            await eventually(begun.exists)
            (modules / "child.py").write_text(CHILD)
            await eventually(lambda: len(workers.pids) == 1)
            assert (await workers.call({})).header == {"echo": {}}

    async def test_a_child_that_computes_does_not_hang(self) -> None:
        async with running(1, hung_after=0.5) as workers:
            with pytest.raises(WorkerTimeoutError):
                await workers.call({"op": "spin"}, timeout=2)

    async def test_a_child_without_a_call_does_not_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        beats = []
        monkeypatch.setattr(heartbeat, "read", lambda pid: beats.append(pid) or heartbeat.Reading("S", 0, (0, 0, 0, 0)))
        monkeypatch.setattr(heartbeat, "EVERY", 0.01)
        async with running(1, hung_after=0.02) as workers:
            await eventually(lambda: len(beats) > 20)
            assert workers.restarts == 0

    def test_a_runnable_child_that_gets_no_processor_time_does_not_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "read", lambda pid: heartbeat.Reading("R", 5, (1, 0, 5, 0)))
        pulse = heartbeat.Pulse(1)
        assert not any(pulse.beat(1, 2, late=False) for _ in range(20))

    def test_a_child_that_waits_while_its_parent_is_held_up_does_not_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "read", lambda pid: heartbeat.Reading("S", 5, (1, 0, 5, 0)))
        pulse = heartbeat.Pulse(1)
        assert not any(pulse.beat(1, 2, late=True) for _ in range(20))
        assert [pulse.beat(1, 2, late=False) for _ in range(2)] == ["", "no progress for 1 s in state S"]

    def test_each_call_has_its_own_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "read", lambda pid: heartbeat.Reading("S", 5, (1, 0, 5, 0)))
        pulse = heartbeat.Pulse(1)
        assert not any(pulse.beat(call, 2, late=False) for call in range(1, 20))

    def test_a_child_in_uninterruptible_sleep_hangs_and_one_that_is_swapped_in_does_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faults = iter(range(10))
        monkeypatch.setattr(heartbeat, "read", lambda pid: heartbeat.Reading("D", 5, (0, next(faults), 5, 0)))
        pulse = heartbeat.Pulse(1)
        assert not any(pulse.beat(0, 2, late=False) for _ in range(10))
        monkeypatch.setattr(heartbeat, "read", lambda pid: heartbeat.Reading("D", 5, (0, 9, 5, 0)))
        assert [pulse.beat(0, 2, late=False) for _ in range(2)] == ["", "no progress for 1 s in state D"]

    def test_a_process_that_is_gone_or_unreadable_says_nothing(self) -> None:
        assert heartbeat.read(2**22 + 1) is None
        assert heartbeat.cpu_seconds(2**22 + 1) is None
        assert heartbeat.Pulse(2**22 + 1).beat(1, 1, late=False) == ""


@pytest.mark.usefixtures("modules")
class TestTrouble:
    async def test_children_that_do_not_start_are_trouble_until_one_does(self, modules: Path) -> None:
        async with running(1) as workers:
            assert workers.trouble is None
            (modules / "child.py").write_text("raise SystemExit(1)")
            os.kill(workers.pids[0], signal.SIGKILL)
            await eventually(lambda: workers.trouble == "test: no worker process starts")
            with pytest.raises(WorkerUnavailableError):  # at once, and not at the next attempt
                await workers.call({})
            (modules / "child.py").write_text(CHILD)
            await eventually(lambda: workers.trouble is None)
            assert (await workers.call({})).header == {"echo": {}}

    async def test_children_that_die_as_soon_as_they_are_ready_are_trouble(self, modules: Path) -> None:
        async with running(1) as workers:
            (modules / "child.py").write_text("import os\nfrom aligner_svc.workers import serve\n" + DIES_READY)
            os.kill(workers.pids[0], signal.SIGKILL)
            await eventually(lambda: workers.trouble is not None)

    async def test_one_child_of_two_is_no_trouble(self, modules: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with running(2) as workers:
            (modules / "child.py").write_text("raise SystemExit(1)")
            os.kill(workers.pids[0], signal.SIGKILL)
            await eventually(lambda: "did not start" in caplog.text)
            assert len(workers.pids) == 1
            assert workers.trouble is None


LOADS = """
import os, sys, time
from pathlib import Path
from aligner_svc.workers import attach, receive_place, refuse_start, serve

parent = attach()
Path(sys.argv[1], "imported").open("a").write("x")
place = receive_place(parent)
if Path(sys.argv[1], "refuses").exists():
    refuse_start(parent, "there is no\\nweight in sight")
    sys.exit(1)

def handle(header, payload):
    if header.get("op") == "abort_once" and not Path(sys.argv[1], "aborted").exists():
        Path(sys.argv[1], "aborted").touch()
        os.abort()
    return {"place": place, "names": sorted(os.environ)}, b""

serve(handle, parent=parent, greeting={"place": place})
"""


@pytest.mark.usefixtures("modules")
class TestOnDemand:
    async def test_the_first_calls_start_all_children_once(self) -> None:
        async with running(2, on_demand=True) as workers:
            assert (workers.pids, workers.wanted, workers.trouble) == ([], 0, None)
            replies = await asyncio.gather(*(workers.call({"n": n}) for n in range(3)))
            assert [reply.header for reply in replies] == [{"echo": {"n": n}} for n in range(3)]
            await eventually(lambda: len(workers.pids) == 2)
            assert (workers.wanted, workers.trouble, workers.restarts) == (2, None, 0)

    async def test_a_child_that_dies_is_replaced(self) -> None:
        async with running(1, on_demand=True) as workers:
            await workers.call({})
            kill_unseen(workers.pids[0])
            await eventually(lambda: workers.restarts == 1 and len(workers.pids) == 1)

    async def test_calls_fail_while_none_starts(self, modules: Path) -> None:
        async with running(1, "later", on_demand=True) as workers:
            with pytest.raises(WorkerUnavailableError):
                await workers.call({})
            assert workers.trouble == "test: no worker process starts"
            (modules / "later.py").write_text(CHILD)
            await eventually(lambda: workers.trouble is None)
            assert (await workers.call({})).header == {"echo": {}}

    async def test_a_pool_that_is_closed_starts_none(self) -> None:
        async with running(1, on_demand=True) as workers:
            pass
        with pytest.raises(WorkerUnavailableError):
            await workers.call({})
        assert workers.wanted == 0


@pytest.mark.usefixtures("modules")
class TestTwoAtOnce:
    """A child that prepares its next call while it is at one."""

    @asynccontextmanager
    async def running(self, modules: Path) -> AsyncIterator[WorkerPool]:
        (modules / "ahead.py").write_text(AHEAD)
        workers = WorkerPool("ahead", 1, name="ahead", at_once=2)
        await workers.start()
        try:
            yield workers
        finally:
            await workers.close()

    async def test_the_next_call_is_prepared_meanwhile_and_answered_after(self, modules: Path, gate: Gate) -> None:
        ready = modules / "ready"
        async with self.running(modules) as workers:
            order: list[str] = []

            async def call(name: str, **header: str) -> None:
                reply = await workers.call(header, name.encode() * (1 << 20))
                assert bytes(reply.payload[:1]) == name.encode()
                order.append(name)

            calls = [asyncio.create_task(call("a", op="hold", gate=gate.path))]
            await gate.begun()
            calls += [asyncio.create_task(call("b", prepared=str(ready))), asyncio.create_task(call("c"))]
            await eventually(ready.exists)
            assert workers.waiting == 1
            gate.open()
            await asyncio.gather(*calls)
            assert order == ["a", "b", "c"]
            with pytest.raises(WorkerFailedError, match="LookupError"):
                await workers.call({"op": "unprepared"})
            assert workers.restarts == 0

    async def test_none_of_two_is_lost_when_their_child_dies(self, modules: Path, gate: Gate) -> None:
        ready = modules / "ready"
        async with self.running(modules) as workers:
            held = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            pid = await gate.begun()
            calls = [asyncio.create_task(workers.call({"n": n, "prepared": str(ready)})) for n in range(3)]
            await eventually(ready.exists)
            gate.began.unlink()
            os.kill(pid, signal.SIGKILL)
            assert await gate.begun() != pid
            gate.open()
            replies = await asyncio.gather(*calls)
            assert [reply.header["echo"] for reply in replies] == [{"n": n, "prepared": str(ready)} for n in range(3)]
            assert (await held).header
            assert workers.restarts == 1

    async def test_a_call_that_ends_every_child_takes_no_other_with_it(self, modules: Path, gate: Gate) -> None:
        """Even if it ends it while it is prepared: a call that is tried again has its child for itself."""
        async with self.running(modules) as workers:
            before = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
            await gate.begun()
            gate.began.unlink()
            culprit, after = (asyncio.create_task(workers.call({"op": op})) for op in ("exit_prepared", "echo"))
            await gate.begun()  # again
            gate.open()
            assert (await before).header
            with pytest.raises(WorkerDiedError):
                await culprit
            assert (await after).header
            assert workers.restarts == 3

    async def test_a_timeout_is_for_the_call_and_not_for_those_before_it(self, modules: Path, gate: Gate) -> None:
        async with self.running(modules) as workers:
            hung = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}, timeout=0.5))
            await gate.begun()
            behind = asyncio.create_task(workers.call({"n": 1}, timeout=30))
            with pytest.raises(WorkerTimeoutError):
                await hung
            assert (await behind).header == {"echo": {"n": 1}}

    async def test_close_ends_both(self, modules: Path, gate: Gate) -> None:
        async with self.running(modules) as workers:
            calls = [asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))]
            await gate.begun()
            calls += [asyncio.create_task(workers.call({})) for _ in range(2)]
            await eventually(lambda: workers.waiting == 1)
            await workers.close()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {WorkerUnavailableError}


class TestPlaces:
    """Children that take long to load, each in a place of its own."""

    @asynccontextmanager
    async def running(self, modules: Path) -> AsyncIterator[WorkerPool]:
        (modules / "loads.py").write_text(LOADS)
        workers = WorkerPool(
            "loads", 2, args=(str(modules),), name="loads", places=("a", "b"), spare=True, outage=0.0, blames_calls=False,
            environment={"EXTRA": "1"},
        )  # fmt: skip
        await workers.start()
        try:
            yield workers
        finally:
            await workers.close()

    async def test_one_that_dies_is_replaced_by_the_spare_in_its_place(self, modules: Path) -> None:
        async with self.running(modules) as workers:
            await eventually(lambda: (modules / "imported").read_text() == "xxx")
            (victim,) = (child for child in workers._children.alive if child.place == "b")
            os.kill(victim.pid, signal.SIGKILL)
            await eventually(lambda: workers.restarts == 1 and len(workers.pids) == 2)
            assert workers.greeting == {"place": "b"}
            assert {place: (state.up, state.wanted, state.restarts) for place, state in workers.places().items()} == {
                "a": (1, 1, 0),
                "b": (1, 1, 1),
            }
            await eventually(lambda: (modules / "imported").read_text() == "xxxx")  # the next spare

    async def test_a_fault_is_the_device_s_and_its_call_is_tried_again(self, modules: Path) -> None:
        async with self.running(modules) as workers:
            reply = await workers.call({"op": "abort_once"})
            assert reply.header["place"] in {"a", "b"}
            names = reply.header["names"]
            assert isinstance(names, list)
            assert "EXTRA" in names
            assert "OMP_NUM_THREADS" not in names
            assert sum(state.restarts for state in workers.places().values()) == 1
            assert sum(state.busy for state in workers.places().values()) > 0

    async def test_no_child_is_trouble_at_once(self, modules: Path) -> None:
        async with self.running(modules) as workers:
            for pid in workers.pids:
                os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: workers.trouble == "loads: no worker process works")

    async def test_a_child_says_why_it_does_not_start(self, modules: Path) -> None:
        (modules / "refuses").touch()
        with pytest.raises(WorkerRefusedError, match=r"^there is no\?weight in sight$"):
            async with self.running(modules):
                pass


class TestStartAndClose:
    async def test_a_child_that_crashes_at_start_is_reported_with_its_stderr(self, modules: Path) -> None:
        (modules / "broken.py").write_text("raise SystemExit('no model in sight')")
        workers = WorkerPool("broken", 2, name="broken")
        with pytest.raises(WorkerDiedError, match="no model in sight"):
            await workers.start()
        assert workers.pids == []

    async def test_a_child_that_is_never_ready_fails_the_start(self, modules: Path) -> None:
        (modules / "slow.py").write_text("import signal; signal.pause()")
        with pytest.raises(WorkerDiedError, match="not ready"):
            await WorkerPool("slow", 1, name="slow", start_timeout=0.2).start()

    async def test_children_that_no_longer_start_are_retried_with_pauses_and_calls_fail(self, modules: Path) -> None:
        async with running(1) as workers:
            tries = modules / "tries"
            (modules / "child.py").write_text(f"open({str(tries)!r}, 'a').write('x'); raise SystemExit(1)")
            with pytest.raises(WorkerDiedError):
                await workers.call({"op": "die"})
            (modules / "child.py").write_text(CHILD)
            await eventually(lambda: bool(workers.pids))
            assert len(tries.read_text()) < 10  # a tight loop makes hundreds

    @pytest.mark.usefixtures("modules")
    async def test_close_leaves_no_process_no_zombie_no_descriptor(self, gate: Gate) -> None:
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        workers = WorkerPool("child", 3, name="test")
        await workers.start()
        with pytest.raises(WorkerDiedError):
            await workers.call({"op": "die"})
        await eventually(lambda: len(workers.pids) == 3)
        pids = workers.pids
        in_flight = asyncio.create_task(workers.call({"op": "hold", "gate": gate.path}))
        await gate.begun()
        await asyncio.gather(workers.close(), workers.close())
        await workers.close()
        with pytest.raises(WorkerDiedError):
            await in_flight
        with pytest.raises(WorkerDiedError):
            await workers.call({})
        assert [state(pid) for pid in pids] == ["", "", ""]
        assert workers.pids == []
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    @pytest.mark.usefixtures("modules")
    async def test_close_kills_a_child_that_does_not_answer(self, gate: Gate) -> None:
        workers = WorkerPool("child", 1, name="test")
        await workers.start()
        (pid,) = workers.pids
        os.kill(pid, signal.SIGSTOP)
        await workers.close()
        assert state(pid) == ""

    @pytest.mark.usefixtures("modules")
    async def test_children_ignore_ctrl_c_and_sigterm(self) -> None:
        async with running(1) as workers:
            (pid,) = workers.pids
            assert os.getpgid(pid) != os.getpgid(0)
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            assert (await workers.call({"op": "pid"})).header["pid"] == pid

    async def test_children_follow_a_killed_parent_even_when_busy(self, modules: Path, gate: Gate) -> None:
        script = (
            "import asyncio, sys\n"
            "from aligner_svc.workers.pool import WorkerPool\n"
            "async def main():\n"
            "    pool = WorkerPool('child', 2, name='orphans')\n"
            "    await pool.start()\n"
            "    print(*pool.pids, flush=True)\n"
            f"    await pool.call({{'op': 'hold', 'gate': {gate.path!r}}})\n"
            "asyncio.run(main())\n"
        )
        path = os.pathsep.join(sys.path)
        with subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        ) as parent:
            assert parent.stdout
            pids = [int(word) for word in parent.stdout.readline().split()]
            await gate.begun()
            parent.kill()
        await eventually(lambda: all(state(pid) in {"", "Z"} for pid in pids))
