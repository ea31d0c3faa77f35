"""One event loop and one server for each file: a server takes a second to load its models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.http import HttpSettings
from aligner_svc.server import Service
from tests.kit.servers import calling, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="module")
def workers() -> int:
    """Aligner processes of `server`, each a second of processor time; a file that needs more has a fixture of this name."""
    return 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(workers: int) -> AsyncIterator[Service]:
    """The whole service, and the port for HTTP."""
    async with serving(workers=workers, http=HttpSettings(listen="127.0.0.1:0")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def stub(server: Service) -> AsyncIterator[AlignerStub]:
    """A caller with a connection of its own."""
    async with calling(server.address) as caller:
        yield caller
