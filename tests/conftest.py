"""What several test files need of the Qwen engine. torch and qwen-asr are imported by the tests that use them alone."""

# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kit.qwen_reference import Reference


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other on a busy machine cost more than they bring."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of 1 ms: times differ wherever classes do, and what lies behind a clip's end still shows."""
    from tests.kit.checkpoint import build

    return build(tmp_path_factory.mktemp("tiny"), segment_ms=1)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Reference:
    """The same checkpoint in qwen-asr's hands."""
    from tests.kit.qwen_reference import Reference

    return Reference(tiny_checkpoint)
