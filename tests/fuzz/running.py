"""Seeds on disk and libFuzzer's arguments."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

_DEFAULTS = {"-max_len": "65536", "-timeout": "20", "-rss_limit_mb": "1536"}
"""Bytes of an input, seconds and MiB: an input that needs more is reported as a crash. The target holds torch-free Python,
libav and the seeds, some 300 MiB."""


def run(target: Callable[[bytes], None], seeds: Callable[[], Iterable[bytes]]) -> None:
    """Fuzz until -runs are done or something crashes; never returns."""
    given = sys.argv[1:]
    defaults = [f"{name}={value}" for name, value in _DEFAULTS.items() if not any(arg.startswith(f"{name}=") for arg in given)]
    with tempfile.TemporaryDirectory() as folder:
        if all(arg.startswith("-") for arg in given):
            for number, seed in enumerate(seeds()):
                Path(folder, f"{number:04}").write_bytes(seed)
            given = [*given, folder]
        atheris.Setup([sys.argv[0], *defaults, *given], target)
        atheris.Fuzz()
