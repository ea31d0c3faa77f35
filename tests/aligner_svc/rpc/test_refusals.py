"""Every reason of docs/errors.md reaches the client with its status and, where a time is known, in all three retry forms."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1.aligner_pb2 import AlignConfig, AlignRequest
from aligner_svc.errors import (
    AlignerError,
    DataLossError,
    InvalidArgumentError,
    LimitExceededError,
    UnavailableError,
    UnsupportedError,
)
from interceptors.calls.refusal import CallRefusedError
from tests import PROJECT
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

ROWS = re.findall(r"^\| `([A-Z0-9_]+)` \| `([A-Z_]+)` \| (.*) \|$", (PROJECT / "docs" / "errors.md").read_text(), re.MULTILINE)
assert len(ROWS) > 50, "the table has another form"
OF_THE_DOMAIN: dict[str, type[AlignerError]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "RESOURCE_EXHAUSTED": LimitExceededError,
    "FAILED_PRECONDITION": UnsupportedError,
    "DATA_LOSS": DataLossError,
    "UNAVAILABLE": UnavailableError,
}
RETRY = {"retry-after": "2", "grpc-retry-pushback-ms": "1500"}
REQUEST = AlignRequest(config=AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Behind a whole server, at `engine.address`."""
    scripted = ScriptedEngine()
    async with serving(engine=scripted) as server:
        scripted.address = server.address
        yield scripted


def failures(reason: str, status: str, retry_after: float | None) -> list[Exception]:
    """The errors that carry a reason: a guard's and, where the domain knows the status, an engine's or decoder's."""
    made: list[Exception] = [CallRefusedError(grpc.StatusCode[status], reason, "refused", retry_after=retry_after)]
    if status in OF_THE_DOMAIN:
        made.append(OF_THE_DOMAIN[status](reason, "refused", retry_after=retry_after))
    return made


@pytest.mark.parametrize(("reason", "status"), [(reason, status) for reason, status, _ in ROWS])
async def test_a_refusal_carries_its_retry_time_in_every_form(engine, reason, status) -> None:
    async with calling(engine.address) as stub:
        for seconds in (1.5, None):
            for error in failures(reason, status, seconds):
                engine.error = error
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Align(REQUEST, timeout=60)
                found = refusal(refused.value)
                assert (found.code.name, found.reason, found.retry_seconds) == (status, reason, seconds)
                trailing = {name: value for name, value in refused.value.trailing_metadata() if name in RETRY}
                assert trailing == (RETRY if seconds else {})
