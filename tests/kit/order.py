"""Which test files `make test` begins with, and which share a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest

TOGETHER = "tests/aligner_svc/engines/qwen/"
"""Files that share a worker process, where qwen-asr, its dictionaries and what is compiled at first use are loaded once."""

LONGEST = (
    TOGETHER,
    "tests/attack/test_short.py",
    "tests/docs/test_blocks.py",
    "tests/e2e/test_process.py",
    "tests/chaos/test_short.py",
    "tests/e2e/test_released_memory.py",
    "tests/e2e/test_retention.py",
    "tests/e2e/test_qwen.py",
    "tests/aligner_svc/telemetry/metrics/test_metrics.py",
    "tests/e2e/test_metrics.py",
    "tests/e2e/test_protection.py",
    "tests/deploy/test_alert_rules.py",
    "tests/aligner_svc/audio/test_decode.py",
    "tests/aligner_svc/workers/test_pool.py",
    "tests/fuzz/test_targets.py",
    "tests/soak/test_short.py",
    "tests/e2e/test_gateways.py",
    "tests/e2e/test_access_life.py",
)
"""Files in the order of their duration, from 140 to 15 s: one that began last would run alone at the end."""


def longest_first(items: list[pytest.Item]) -> None:
    """Sort in place; tests of one file stay together, in their order."""
    rank = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(_unit(item.nodeid), len(rank)))


class FilesScheduling(LoadFileScheduling):  # type: ignore[misc]
    """As --dist loadfile, with the files that belong together as one."""

    def _split_scope(self, nodeid: str) -> str:
        return _unit(nodeid)


def _unit(nodeid: str) -> str:
    return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]
