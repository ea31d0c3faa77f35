"""One decision whether the server takes calls, told alike wherever it is asked for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import pytest_asyncio

from aligner_svc.health import serving
from aligner_svc.health.grpc_health import NOT_SERVING, SERVING, GrpcHealth
from aligner_svc.health.serving import Serving
from tests.kit.waiting import eventually


@pytest.fixture
def health() -> GrpcHealth:
    return GrpcHealth()


@pytest_asyncio.fixture
async def decision(health: GrpcHealth, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(serving, "_EVERY", 0.001)
    made = Serving(health, ("", "aligner"))
    yield made
    await made.drain()


async def test_it_serves_from_the_begin_to_the_drain(decision: Serving, health: GrpcHealth) -> None:
    assert (decision.why_not, dict(health.statuses)) == ("it is starting", {"": NOT_SERVING, "aligner": NOT_SERVING})
    decision.begin(())
    assert (decision.why_not, dict(health.statuses)) == (None, {"": SERVING, "aligner": SERVING})
    await decision.drain()
    decision.device(None)
    assert (decision.why_not, dict(health.statuses)) == ("it is draining", {"": NOT_SERVING, "aligner": NOT_SERVING})


async def test_a_pool_without_a_process_that_works_ends_it_until_there_is_one(
    decision: Serving, health: GrpcHealth, caplog: pytest.LogCaptureFixture
) -> None:
    pools = [SimpleNamespace(trouble=None), SimpleNamespace(trouble=None)]
    decision.begin(pools)  # type: ignore[arg-type]
    pools[1].trouble = "decoder: no worker process starts"
    with caplog.at_level(logging.INFO):
        await eventually(lambda: health.statuses[""] == NOT_SERVING)
        assert decision.why_not == "decoder: no worker process starts"
        pools[1].trouble = None
        await eventually(lambda: health.statuses[""] == SERVING)
    assert decision.why_not is None
    assert [record.getMessage() for record in caplog.records] == [
        "NOT_SERVING: decoder: no worker process starts",
        "SERVING",
    ]


async def test_a_device_that_fails_ends_it_at_once(decision: Serving, health: GrpcHealth) -> None:
    decision.device("CUDA error 719")  # while it starts: it does not begin for that
    assert decision.why_not == "it is starting"
    decision.begin(())
    assert (decision.why_not, health.statuses[""]) == ("the engine has failed: CUDA error 719", NOT_SERVING)
    decision.device(None)
    assert (decision.why_not, health.statuses[""]) == (None, SERVING)
