"""What all tests of the command line share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, no settings but the test's own, and a terminal of 120 columns."""
    for name in [name for name in os.environ if name.upper().startswith("ALIGNER_")]:
        monkeypatch.delenv(name)
    # Set and removed again, so that the variable is also restored when a command sets it.
    monkeypatch.setenv("ALIGNER_CONFIG", "x")
    monkeypatch.delenv("ALIGNER_CONFIG")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
