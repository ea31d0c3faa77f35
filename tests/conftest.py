"""Settings of all property tests, the order of all files, and fixtures for the Qwen engine.

Only tests that use torch and qwen-asr import them.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests import PROJECT
from tests.kit.order import FilesScheduling, longest_first

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

    from tests.kit.qwen_reference import Reference

# Child processes, too, import the code of this checkout, even where .venv is another's.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), str(PROJECT / "client"), os.environ.get("PYTHONPATH")]))

# The same examples on every run, however slow the machine; `make fuzz` looks for new ones.
settings.register_profile(
    "aligner", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aligner")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Build hypothesis' table of characters, seconds of work on a fresh machine, here and not within a test.

    It is kept in .hypothesis. Last: after hypothesis' own start, and still before pytest-xdist starts its workers.
    """
    st.text().validate()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import all modules without the garbage collector, which would look through them again and again, then and in every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return FilesScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Tests run side by side: on a busy machine threads that wait for each other cost more time than they save."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with classes of 1 ms: different classes give different times, also beyond a clip's end."""
    from tests.kit.checkpoint import build

    return build(tmp_path_factory.mktemp("tiny"), segment_ms=1)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Reference:
    """The same checkpoint, loaded by qwen-asr."""
    from tests.kit.qwen_reference import Reference

    return Reference(tiny_checkpoint)
