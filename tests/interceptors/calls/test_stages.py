"""What a call spent its time on, as those who do the work tell it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from interceptors import Call, CallRefusedError
from interceptors.calls.call import StageTiming, enter_call
from interceptors.calls.stages import MAX_STAGES, add_stage, stage, trace_stages
from interceptors.tracing.call_trace import CallTrace, SpanRef


@pytest.fixture
def clock(monkeypatch):
    """Advances by a second whenever it is read."""
    readings = iter(range(100, 100_000))
    monkeypatch.setattr("interceptors.calls.stages.time.perf_counter", lambda: float(next(readings)))


@pytest.fixture
async def call():
    """Async, so that it is entered in the context of the test."""
    return Call("/test.Kinds/UnaryUnary", "ipv4:127.0.0.1:1")


async def test_a_stage_is_measured_and_kept_with_the_call(clock, call) -> None:
    enter_call(call)
    with stage("decode", bytes=7) as decoding:
        assert call.stages == []
        decoding.attributes["container"] = "wav"
    (kept,) = call.stages
    assert (kept.name, kept.began, kept.seconds, kept.error) == ("decode", 100.0, 1.0, "")
    assert kept.attributes == {"bytes": 7, "container": "wav"}


async def test_stages_within_stages_end_first(clock, call) -> None:
    enter_call(call)
    with stage("outer"):
        with stage("first"):
            pass
        with stage("second"):
            pass
    assert [(one.name, one.seconds) for one in call.stages] == [("first", 1.0), ("second", 1.0), ("outer", 5.0)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "the word is hunter2"), "QUOTA_EXCEEDED"),
        (ValueError("hunter2"), "ValueError"),
        (UnicodeDecodeError("utf-8", b"hunter2", 0, 1, "hunter2"), "UnicodeDecodeError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_a_failed_stage_has_the_reason_and_not_the_text(call, error, reason) -> None:
    enter_call(call)
    with pytest.raises(type(error)), stage("quota"):
        raise error
    (kept,) = call.stages
    # A UnicodeDecodeError has a reason too, which is no name of anything.
    assert kept.error == reason
    assert "hunter2" not in repr(kept)


def test_outside_of_a_call_a_stage_is_measured_all_the_same(clock) -> None:
    with stage("decode") as decoding:
        pass
    assert decoding.seconds == 1.0


async def test_a_stage_that_is_over_can_be_added(call) -> None:
    enter_call(call)
    add_stage("queue", 12.0, 3.5, slot=2)
    (kept,) = call.stages
    assert (kept.name, kept.began, kept.seconds, kept.attributes) == ("queue", 12.0, 3.5, {"slot": 2})


async def test_of_very_many_stages_the_first_are_kept(call) -> None:
    enter_call(call)
    for number in range(MAX_STAGES + 5):
        with stage("window", number=number):
            pass
    assert [one.attributes["number"] for one in call.stages] == list(range(MAX_STAGES))


async def test_a_hook_hears_of_stages_of_its_own_call_alone() -> None:
    heard: list[str] = []

    def hook(begun: StageTiming):
        heard.append(f"> {begun.name}")
        return lambda ended: heard.append(f"< {ended.name} {ended.error}")

    async def traced() -> None:
        trace_stages(hook)
        with pytest.raises(KeyError), stage("decode"):
            raise KeyError
        await asyncio.create_task(within())
        await asyncio.to_thread(working)
        add_stage("queue", 0.0, 1.0)

    async def within() -> None:
        with stage("task"):
            pass

    def working() -> None:
        with stage("thread"):
            pass

    async def untraced() -> None:
        with stage("other"):
            pass

    await asyncio.gather(asyncio.create_task(traced()), asyncio.create_task(untraced()))
    begun_and_ended = ["> decode", "< decode KeyError", "> task", "< task ", "> thread", "< thread ", "> queue", "< queue "]
    assert heard == begun_and_ended


async def test_a_stage_in_an_abandoned_generator_ends_where_that_is_closed(call) -> None:
    """Python finishes it in another task, whose context knows nothing of the stage."""
    trace = CallTrace("test", "/test", "", SpanRef(1, 2, True), None, 0.0, 0)
    trace_stages(trace.begin_stage)

    async def generate():
        with stage("receive"):
            yield 1

    receiving = generate()
    assert await anext(receiving) == 1
    await asyncio.create_task(_close(receiving))
    (span,) = trace.stage_spans
    assert (span.stage.name, span.stage.error, span.parent_id) == ("receive", "GeneratorExit", 2)


async def _close(generator) -> None:
    await generator.aclose()
