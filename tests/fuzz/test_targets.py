"""The fuzz targets find nothing in their seeds and some hundred more inputs; `make fuzz` goes on from there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PROJECT

pytest.importorskip("atheris", reason="needs atheris")


@pytest.mark.parametrize(("target", "runs"), [("fuzz_audio", 200), ("fuzz_text", 1000), ("fuzz_messages", 3000)])
def test_a_short_run_finds_nothing(target: str, runs: int, tmp_path: Path) -> None:
    # A child's peak memory begins with its parent's (ru_maxrss survives exec), and a test process with torch in it has had more
    # than a target may have: how much memory an input takes is left to `make fuzz`.
    command = [sys.executable, "-m", f"tests.fuzz.{target}", f"-runs={runs}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    command.append("-rss_limit_mb=0")
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    tried = re.search(r"Done (\d+) runs", done.stderr)  # some more than asked: libFuzzer ends the round that it is in
    assert tried is not None, done.stderr[-4000:]
    assert int(tried[1]) >= runs, done.stderr[-4000:]
    assert not list(tmp_path.iterdir())


def test_a_short_run_of_frames_kills_no_listener() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_http2", "-runs=2000", "-seed=3"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "0 dead listeners" in done.stderr
