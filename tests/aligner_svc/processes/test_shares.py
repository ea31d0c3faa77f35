"""What each process gets of the settings."""

from __future__ import annotations

import pytest

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.limits import DecodeSettings, ServerSettings
from aligner_svc.processes.shares import share


@pytest.mark.parametrize("count", [2, 3, 5])
def test_limits_of_the_server_are_divided_without_a_rest(count: int) -> None:
    whole = Settings(engine=EngineSettings(workers=7, queue=64), decode=DecodeSettings(workers=5))
    parts = [share(whole, count, index) for index in range(count)]
    assert sum(part.engine.workers for part in parts) == 7
    assert sum(part.engine.queue for part in parts) == 64
    assert sum(part.decode.workers for part in parts) == 5
    assert sum(part.connections.most for part in parts) == whole.connections.most
    assert {part.connections.per_address for part in parts} == {whole.connections.per_address}


def test_no_process_is_left_without() -> None:
    """More processes than workers have one each, which is more in all than was asked for."""
    part = share(Settings(engine=EngineSettings(workers=1), server=ServerSettings(processes=4)), 4, 3)
    assert part.engine.workers == 1
    assert part.antivirus.connections >= 2
