"""Packages of npm that tests run: installed as their package-lock.json has them, once, however many test processes run."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = shutil.which("node") is not None and shutil.which("npm") is not None
REASON = "needs node and npm"
needs_node = pytest.mark.skipif(not HERE, reason=REASON)


def install(folder: Path) -> None:
    """Skips the test where there is no node."""
    if not HERE:
        pytest.skip(REASON)
    lock = folder / "package-lock.json"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # npm writes the hidden file last: without it an installation was broken off.
        if _versions(folder / "node_modules" / ".package-lock.json") == _versions(lock):
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"npm ci failed in {folder}:\n{done.stderr}"


def _versions(lock: Path) -> dict[str, str] | None:
    """Of each package; None where the file is not there or not whole."""
    try:
        packages = json.loads(lock.read_text())["packages"]
    except (OSError, ValueError, KeyError):
        return None
    return {name: package["version"] for name, package in packages.items() if name}
