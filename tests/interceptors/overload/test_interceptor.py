"""The overload guard on a real server: which calls are admitted, wait or are refused, and what is freed when they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors import Recovery, RequestId, Requests, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import SecurityEvent
from interceptors.handlers.arrivals import Arrivals, WholeReads
from interceptors.overload.admission import GRACE, AdmissionControl, Priority
from interceptors.overload.interceptor import Overload
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.overload.places import Places
from interceptors.overload.pressure import Groups, Pressure, PressureReading
from interceptors.overload.upload_memory import UploadMemory
from tests.kit import chain_server as chain_server_kit
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, authentication, bearer, chain_server
from tests.kit.waiting import eventually, loop_turns

OPEN = f"/{SERVICE}/Open"


class Service(KindsHandler):
    """Reads all of a request, then works until the gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        """Names of calls whose work began."""
        self.came: asyncio.Queue[str] = asyncio.Queue()
        """Names of streams whose handler began."""
        self.report: tuple[float, float] | None = (0.0, 1.0)

    async def act(self, request, context) -> bytes:
        name = _name()
        call = current_call()
        assert call is not None
        assert call.admission is not None
        if name == FOLLOWED:
            self.begun.put_nowait(name)
            await self.gate.wait()
            return name.encode()
        async with call.admission.working() as timer:
            self.begun.put_nowait(name)
            await self.gate.wait()
            if self.report is not None:
                timer.waited, timer.worked = self.report
        return name.encode()

    async def stream_unary(self, requests, context):
        self.came.put_nowait(_name())
        if _name() == FOLLOWED:
            current_call().admission.followed()
        return await super().stream_unary(requests, context)

    def unary_methods(self):
        return {"Quick": self._open, "Open": self._open}

    async def _open(self, request, context):
        return b"open"


def _name() -> str:
    call = current_call()
    return call.principal.name if call and call.principal else ""


def _priority(call) -> Priority:
    return {"l": Priority.LOW, "h": Priority.HIGH}.get(call.principal.name[0], Priority.NORMAL)


FOLLOWED = "followed"
"""A stream that is worked on while it arrives."""


class Bench:
    """`calls`: the limit, fixed unless it is `adaptive`."""

    def __init__(self, calls: int = 2, *, adaptive: bool = False, **parts) -> None:
        self.limit = AdaptiveLimit(LimitRules(1 if adaptive else calls, calls * 10 if adaptive else calls, calls))
        self.service = Service()
        self.calls: list[asyncio.Task[bytes]] = []
        self.skipped = 0.0
        self.expected = 0.0
        arguments = {
            "exempt": {OPEN},
            "priority": _priority,
            "expected_seconds": lambda: self.expected,
            "now": lambda: time.monotonic() + self.skipped,
            "jitter": lambda: 0.5,
        }
        self.overload = Overload(parts.pop("limit", self.limit), **(arguments | parts))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aio.Channel]:
        chain = (Recovery("test"), RequestId(), authentication(exempt={OPEN}), self.overload, Requests())
        async with chain_server(chain, self.service) as server:
            yield server.channel
            self.service.gate.set()
            await asyncio.gather(*self.calls)
        counts = self.overload.counts
        assert (counts.on_the_way, counts.waiting, counts.at_work) == (0, 0, 0)

    async def fill(
        self, channel: aio.Channel, names: Sequence[str] = "hh", kind: str = "UnaryUnary"
    ) -> list[asyncio.Task[bytes]]:
        """Start calls, one for each name, that stay at work."""
        calls = []
        for name in names:
            calls.append(asyncio.create_task(answer(start(channel, kind, name))))
            await _soon(self.service.begun.get())
        self.calls += calls
        return calls


def start(channel: aio.Channel, kind: str, name: str = "normal", body: bytes = b"body", timeout: float | None = None):
    return chain_server_kit.start(channel, kind, body, metadata=[bearer(name)], timeout=timeout)


async def refused(call: Awaitable[bytes]) -> tuple[str, str, float]:
    """Code, reason, and seconds until a retry."""
    with pytest.raises(aio.AioRpcError) as error:
        await _soon(call)
    trailing = dict(error.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert int(trailing["grpc-retry-pushback-ms"]) == pytest.approx(retry.retry_delay.ToMilliseconds(), abs=1)
    return error.value.code().name, info.reason, retry.retry_delay.ToMilliseconds() / 1000


async def _soon(work: Awaitable):
    async with asyncio.timeout(30):
        return await work


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_above_the_limit_is_refused_unread(kind) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        calls = await bench.fill(channel, "hh", kind)
        read = bench.service.read
        assert (await refused(answer(start(channel, kind, "h", bytes(40 << 20)))))[:2] == ("UNAVAILABLE", "SERVER_OVERLOADED")
        assert bench.service.read == read
        bench.service.gate.set()
        assert await _soon(asyncio.gather(*calls)) == [b"h", b"h"]
        assert await answer(start(channel, kind, "h")) == b"h"
    assert bench.overload.refused == {"SERVER_OVERLOADED": 1}


async def test_methods_that_are_exempt_always_pass() -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        await bench.fill(channel, "h")
        assert await channel.unary_unary(OPEN)(b"") == b"open"


async def test_a_call_without_work_leaves_nothing_behind() -> None:
    bench = Bench(2)
    async with bench.serving() as channel:
        for _ in range(5):
            assert await channel.unary_unary(f"/{SERVICE}/Quick")(b"", metadata=[bearer("h")]) == b"open"


async def test_an_administrator_always_passes_and_counts() -> None:
    pressure = Pressure(Groups(Path("/none"), Path("/none")))
    pressure.update(PressureReading(memory=0.99))
    bench = Bench(1, pressure=pressure)
    async with bench.serving() as channel:
        for _ in range(2):
            await bench.fill(channel, ["admin,admin"])
        assert bench.overload.counts.at_work == 2


async def test_low_priorities_are_shed_first() -> None:
    """Ten places: low gets in while fewer than 7 are taken, normal 9, high 10."""
    bench = Bench(10)
    async with bench.serving() as channel:
        await bench.fill(channel, "lllllll")
        assert (await refused(answer(start(channel, "UnaryUnary", "low"))))[1] == "SERVER_OVERLOADED"
        await bench.fill(channel, "nn")
        for name in ("low", "normal"):
            assert (await refused(answer(start(channel, "UnaryUnary", name))))[1] == "SERVER_OVERLOADED"
        await bench.fill(channel, "h")
        assert (await refused(answer(start(channel, "UnaryUnary", "high"))))[1] == "SERVER_OVERLOADED"


async def test_a_class_always_has_one_place_on_an_idle_server() -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        await bench.fill(channel, "l")


@pytest.mark.parametrize(("memory", "low", "normal", "high"), [(0.5, 7, 9, 10), (0.9, 3, 7, 10), (0.96, 0, 0, 0)])
async def test_under_pressure_low_priorities_have_smaller_shares_and_then_none(memory, low, normal, high, tmp_path) -> None:
    pressure = Pressure(Groups(tmp_path, tmp_path / "none"))
    pressure.update(PressureReading(memory=memory))
    bench = Bench(10, pressure=pressure)
    async with bench.serving() as channel:
        for name, admitted in (("l", low), ("n", normal), ("h", high)):
            await bench.fill(channel, name * (admitted - bench.overload.counts.at_work))
            assert (await refused(answer(start(channel, "UnaryUnary", name))))[:2] == ("UNAVAILABLE", "SERVER_OVERLOADED")


async def test_a_call_whose_deadline_cannot_be_met_is_refused_at_once() -> None:
    bench = Bench(limit=None)
    bench.expected = 100.0
    async with bench.serving() as channel:
        refusal = await refused(answer(start(channel, "UnaryUnary", timeout=50.0)))
        assert refusal[:2] == ("UNAVAILABLE", "DEADLINE_UNREACHABLE")
        bench.service.gate.set()
        assert await answer(start(channel, "UnaryUnary", timeout=150.0)) == b"normal"
        assert await answer(start(channel, "UnaryUnary")) == b"normal"
        assert await answer(start(channel, "UnaryUnary", "admin,admin", timeout=50.0)) == b"admin"


async def test_without_a_limit_every_call_is_admitted() -> None:
    bench = Bench(limit=None)
    async with bench.serving() as channel:
        await bench.fill(channel, "l" * 50)


@pytest.mark.parametrize("kind", ["StreamUnary", "StreamStream"])
async def test_a_call_takes_no_place_before_its_request_is_complete(kind) -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        path = f"/{SERVICE}/{kind}"
        make = channel.stream_unary(path) if kind == "StreamUnary" else channel.stream_stream(path)
        slow = make(metadata=[bearer("hslow")])
        await slow.write(b"first")
        await _soon(bench.service.came.get())
        [other] = await bench.fill(channel, "h")
        bench.skipped += GRACE
        # Its upload complete, it waits for the place that the other has taken meanwhile, and no new call is admitted before it.
        await slow.done_writing()
        await eventually(lambda: bench.overload.counts.waiting == 1)
        assert (await refused(answer(start(channel, "UnaryUnary", "h"))))[1] == "SERVER_OVERLOADED"
        bench.service.gate.set()
        assert await _soon(other) == b"h"
        assert await _soon(slow.read() if kind == "StreamStream" else slow) == b"hslow"
        if kind == "StreamStream":
            assert await slow.read() is aio.EOF


async def test_a_stream_that_is_followed_needs_no_place_and_takes_none_from_others() -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        stream = channel.stream_unary(f"/{SERVICE}/StreamUnary")(metadata=[bearer(FOLLOWED)])
        await stream.write(b"first")
        await _soon(bench.service.came.get())
        [before] = await bench.fill(channel, "h")
        await stream.done_writing()
        assert await _soon(bench.service.begun.get()) == FOLLOWED, "it was refused half way"
        bench.service.gate.set()
        assert await _soon(asyncio.gather(before, stream)) == [b"h", FOLLOWED.encode()]
        bench.service.gate.clear()
        ended = start(channel, "StreamUnary", FOLLOWED)
        await _soon(bench.service.begun.get())
        await bench.fill(channel, "h")
        bench.service.gate.set()
        assert await _soon(answer(ended)) == FOLLOWED.encode()


async def test_of_calls_that_come_together_only_those_with_a_place_are_worked_on() -> None:
    bench = Bench(2)
    async with bench.serving() as channel:
        half_open = [channel.stream_unary(f"/{SERVICE}/UnaryUnary")(metadata=[bearer("h")]) for _ in range(5)]
        await eventually(lambda: bench.overload.counts.on_the_way == 5)
        for call in half_open:
            await call.write(b"body")
            await call.done_writing()
        await eventually(lambda: bench.overload.counts.at_work == 2 and bench.overload.refused["SERVER_OVERLOADED"] == 3)
        bench.service.gate.set()
        results = await _soon(asyncio.gather(*half_open, return_exceptions=True))
        assert results.count(b"h") == 2


async def half_opened(bench: Bench, channel: aio.Channel, name: str, count: int, kind: str = "UnaryUnary") -> list:
    """Calls of which nothing has come but the headers, one after the other."""
    before, calls = bench.overload.counts.on_the_way, []
    for _ in range(count):
        calls.append(channel.stream_unary(f"/{SERVICE}/{kind}")(metadata=[bearer(name)]))
        await eventually(lambda: bench.overload.counts.on_the_way == before + len(calls))
    return calls


@pytest.mark.parametrize("kind", ["UnaryUnary", "StreamUnary"])
async def test_callers_that_send_nothing_keep_no_other_out(kind) -> None:
    """Four callers have as many half-open calls as there may be: a newcomer gets the place that was silent for longest."""
    events: list[SecurityEvent] = []
    bench = Bench(10, arrivals=8, whole_reads=1, record=events.append)
    async with bench.serving() as channel:
        calls = {name: await half_opened(bench, channel, name, 2, kind) for name in ("a", "b", "c", "d")}
        bench.service.gate.set()
        for _ in range(3):  # at once, and it leaves its own place free
            assert await _soon(answer(start(channel, kind, "newcomer"))) == b"newcomer"
        assert await refused(calls["a"][0]) == ("RESOURCE_EXHAUSTED", "REQUESTS_UNFINISHED", 1.0)
        assert bench.overload.counts.on_the_way == 7
        for call in (each for own in calls.values() for each in own):
            call.cancel()
        await eventually(lambda: bench.overload.counts.on_the_way == 0)
    assert [(event.event.value, event.principal) for event in events] == [("requests_unfinished", "a")]
    assert bench.overload.refused == {"REQUESTS_UNFINISHED": 1}


async def test_the_caller_with_the_most_unfinished_requests_is_told_so() -> None:
    bench = Bench(10, arrivals=4)
    async with bench.serving() as channel:
        calls = await half_opened(bench, channel, "greedy", 4)
        assert (await refused(answer(start(channel, "UnaryUnary", "greedy"))))[1] == "REQUESTS_UNFINISHED"
        for call in calls:
            call.cancel()
        await eventually(lambda: bench.overload.counts.on_the_way == 0)
        await bench.fill(channel, ["greedy"])


async def test_one_callers_unary_requests_are_read_a_few_at_a_time_and_others_at_once() -> None:
    bench = Bench(10, whole_reads=2)
    bench.service.gate.set()
    async with bench.serving() as channel:
        first, second = await half_opened(bench, channel, "slow", 2)
        waiting = asyncio.create_task(answer(start(channel, "UnaryUnary", "slow")))
        await eventually(lambda: bench.overload.counts.on_the_way == 3)
        assert await _soon(answer(start(channel, "UnaryUnary", "other"))) == b"other"
        assert not waiting.done()
        first.cancel()
        assert await _soon(waiting) == b"slow"
        second.cancel()


async def test_an_upload_beyond_its_callers_share_of_the_memory_waits_and_others_go_on() -> None:
    chunk, paths = 128 * 1024, {f"/{SERVICE}/StreamUnary"}
    bench = Bench(10, uploads=paths, memory=UploadMemory(shared=3 * chunk, reserve=2 * chunk))
    bench.service.gate.set()
    async with bench.serving() as channel:
        greedy = []
        for _ in range(4):  # two in its share, the third in the reserve, the fourth waits
            call = channel.stream_unary(f"/{SERVICE}/StreamUnary")(metadata=[bearer("greedy")])
            await call.write(bytes(chunk))
            greedy.append(call)
        await eventually(lambda: bench.overload.memory.waiting == 1)
        assert await _soon(answer(start(channel, "StreamUnary", "other", bytes(chunk)))) == b"other"
        for number in range(4):
            await greedy[number].done_writing()
            assert await _soon(greedy[number]) == b"greedy"
        await eventually(lambda: bench.overload.memory.used == 0)


async def uploaded(bench: Bench, channel: aio.Channel, names: Sequence[str], others: str = "h") -> list:
    """Admitted streams that wait for a place, in this order; `others` hold all places."""
    streams = []
    for name in names:
        stream = channel.stream_unary(f"/{SERVICE}/StreamUnary")(metadata=[bearer(name)])
        await stream.write(b"first")
        await _soon(bench.service.came.get())
        bench.skipped += GRACE
        streams.append(stream)
    await bench.fill(channel, others)
    for number, stream in enumerate(streams, 1):
        await stream.done_writing()
        await eventually(lambda number=number: bench.overload.counts.waiting == number)
    return streams


async def test_waiting_calls_go_by_priority_and_then_in_order() -> None:
    bench = Bench(4)
    async with bench.serving() as channel:
        streams = await uploaded(bench, channel, ["low", "n1", "n2", "high"], "hhhh")
        bench.service.gate.set()
        await _soon(asyncio.gather(*streams))
        begun = [bench.service.begun.get_nowait() for _ in range(4)]
        assert begun == ["high", "n1", "n2", "low"]


async def test_a_call_that_waits_too_long_is_refused() -> None:
    bench = Bench(1, wait_timeout=0.05)
    async with bench.serving() as channel:
        [stream] = await uploaded(bench, channel, ["n"])
        assert (await refused(stream))[:2] == ("UNAVAILABLE", "SERVER_OVERLOADED")
        assert bench.overload.counts.waiting == 0


async def test_no_more_wait_than_are_at_work() -> None:
    bench = Bench(1, wait_timeout=3600.0)
    async with bench.serving() as channel:
        second = channel.stream_unary(f"/{SERVICE}/StreamUnary")(metadata=[bearer("second")])
        await second.write(b"first")
        await _soon(bench.service.came.get())
        bench.skipped += GRACE
        await uploaded(bench, channel, ["first"])
        await second.done_writing()
        assert (await refused(second))[1] == "SERVER_OVERLOADED"


async def test_a_call_cancelled_while_waiting_or_working_frees_its_place() -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        [stream] = await uploaded(bench, channel, ["n"])
        stream.cancel()
        await eventually(lambda: bench.overload.counts.waiting == 0)
        bench.service.gate.set()
        await eventually(lambda: bench.overload.counts.at_work == 0)
        bench.service.gate.clear()
        await bench.fill(channel, "h")
        working_ = bench.overload.counts.at_work
        assert working_ == 1
        bench.service.gate.set()
        await eventually(lambda: bench.overload.counts.at_work == 0)
        bench.service.gate.clear()
        cancelled = start(channel, "UnaryUnary", "h")
        await _soon(bench.service.begun.get())
        cancelled.cancel()
        await eventually(lambda: bench.overload.counts.at_work == 0)
        await bench.fill(channel, "h")


async def test_a_place_given_to_a_call_that_is_cancelled_at_once_is_passed_on() -> None:
    limit, never = AdaptiveLimit(LimitRules(1, 1, 1)), Arrivals(9, lambda arrival: _full())
    places, long = (Places(limit, time.monotonic, _full, 60.0) for _ in range(2))
    control = AdmissionControl(places, long, time.monotonic, _full, never, WholeReads(9), UploadMemory(9, 9))
    gates = {name: asyncio.Event() for name in "abc"}
    begun: list[str] = []

    async def call(name: str) -> None:
        async with control.admit("caller").working():
            begun.append(name)
            await gates[name].wait()

    first = asyncio.create_task(call("a"))
    await loop_turns()
    quitter = asyncio.create_task(call("b"))
    await loop_turns()
    assert control.counts.waiting == 1
    first.cancel()  # ends in the next turn and hands its place to b, which is cancelled in the same turn
    await loop_turns()
    quitter.cancel()
    await asyncio.gather(first, quitter, return_exceptions=True)
    assert (control.counts.waiting, control.counts.at_work) == (0, 0)
    last = asyncio.create_task(call("c"))
    gates["c"].set()
    await _soon(last)
    assert begun[0] == "a"
    assert begun[-1] == "c"


class LongCalls:
    """A control with one place for calls in general and two for long ones, and the calls at work under it."""

    def __init__(self) -> None:
        one, two = AdaptiveLimit(LimitRules(1, 1, 1)), AdaptiveLimit(LimitRules(2, 2, 2))
        self.places, self.long = Places(one, time.monotonic, _full, 60.0), Places(two, time.monotonic, _full, 0.02)
        self.control = _control(self.places, self.long)
        self.done = asyncio.Event()

    async def call(self, *, long: bool = True) -> None:
        admitted = self.control.admit("caller")
        async with admitted.working():
            for _ in range(2 * long):
                await admitted.prolong()
            await self.done.wait()


def _control(places: Places, long: Places) -> AdmissionControl:
    arrivals = Arrivals(9, lambda arrival: _full())
    return AdmissionControl(places, long, time.monotonic, _full, arrivals, WholeReads(9), UploadMemory(9, 9))


async def test_long_calls_take_no_place_of_the_others() -> None:
    calls = LongCalls()
    tasks = [asyncio.create_task(calls.call()) for _ in range(2)]
    await eventually(lambda: calls.control.counts.long == 2)
    assert calls.control.has_room(1.0)
    tasks.append(asyncio.create_task(calls.call(long=False)))
    await eventually(lambda: calls.control.counts.at_work == 1)
    calls.done.set()
    await asyncio.gather(*tasks)
    assert (calls.places.taken, calls.long.taken) == (0, 0)


async def test_a_long_call_is_refused_if_no_long_place_becomes_free() -> None:
    calls = LongCalls()
    tasks = [asyncio.create_task(calls.call()) for _ in range(2)]
    await eventually(lambda: calls.long.taken == 2)
    with pytest.raises(CallRefusedError):
        await calls.call()
    assert (calls.places.taken, calls.long.waiting) == (0, 0)
    calls.long.timeout = 60.0
    waiting = asyncio.create_task(calls.call())
    await eventually(lambda: calls.long.waiting == 1)
    assert calls.control.has_room(1.0)
    tasks.pop().cancel()
    await eventually(lambda: calls.long.waiting == 0)
    calls.done.set()
    await asyncio.gather(waiting, *tasks)
    assert (calls.places.taken, calls.long.taken) == (0, 0)


async def test_the_wait_of_long_calls_lowers_their_own_limit_alone() -> None:
    rules = LimitRules(1, 8, 8, samples=1)
    limit, of_long = AdaptiveLimit(rules), AdaptiveLimit(rules)
    control = _control(*(Places(each, time.monotonic, _full, 1.0) for each in (limit, of_long)))
    for _ in range(8):
        admitted = control.admit("caller")
        async with admitted.working() as timer:
            await admitted.prolong()
            timer.waited, timer.worked = 60.0, 1.0
    assert limit.calls == 8
    assert of_long.calls < 8


def _full() -> CallRefusedError:
    return CallRefusedError(grpc.StatusCode.UNAVAILABLE, "SERVER_OVERLOADED", "full", retry_after=1.0)


async def test_the_reports_of_the_servicer_move_the_limit() -> None:
    bench = Bench(4, adaptive=True)
    bench.service.gate.set()
    bench.service.report = (100.0, 1.0)
    async with bench.serving() as channel:
        for _ in range(10):
            await answer(start(channel, "UnaryUnary", "h"))
        assert bench.overload.limit == 2.0
        bench.service.report = None  # calls that fail do not count
        for _ in range(20):
            await answer(start(channel, "UnaryUnary", "h"))
    assert bench.overload.limit == 2.0


async def test_calls_that_miss_their_deadline_lower_the_limit() -> None:
    bench = Bench(4, adaptive=True)
    async with bench.serving() as channel:
        for _ in range(10):  # only calls that miss their deadline wait for 0.25 s
            call = start(channel, "UnaryUnary", "h", timeout=0.3)
            await _soon(bench.service.begun.get())
            with pytest.raises(aio.AioRpcError):
                await call
            await eventually(lambda: bench.overload.counts.at_work == 0)
    assert bench.overload.limit < 4.0


async def test_retry_after_grows_with_the_number_of_refused_calls() -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        await bench.fill(channel, "h")
        delays = [(await refused(answer(start(channel, "UnaryUnary", "h"))))[2] for _ in range(60)]
        assert delays[0] == pytest.approx(2.0, rel=0.1)
        assert delays == sorted(delays)
        assert delays[-1] == 30.0
        bench.skipped += 120.0
        assert (await refused(answer(start(channel, "UnaryUnary", "h"))))[2] == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 1.0), (0.999, 3.0)])
async def test_retry_after_is_jittered(jitter, seconds) -> None:
    bench = Bench(1, jitter=lambda: jitter)
    async with bench.serving() as channel:
        await bench.fill(channel, "h")
        assert (await refused(answer(start(channel, "UnaryUnary", "h"))))[2] == pytest.approx(seconds, rel=0.1)


async def test_shedding_is_logged_once_and_not_for_every_call(caplog) -> None:
    bench = Bench(1)
    async with bench.serving() as channel:
        await bench.fill(channel, "h")
        for _ in range(20):
            await refused(answer(start(channel, "UnaryUnary", "h")))
    assert len([record for record in caplog.records if record.name == "interceptors.overload.overload"]) == 1
