from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def only_the_tests_settings(monkeypatch, tmp_path):
    """No settings from the environment or from a file in the working directory."""
    for name in [name for name in os.environ if name.upper().startswith("ALIGNER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
