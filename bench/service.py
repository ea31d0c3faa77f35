"""A server for a bench: started on a free loopback port, stopped by its process id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(r"aligner-svc ready on (\S+)")
_WAIT_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    target: str
    pid: int
    seconds_to_ready: float


@contextmanager
def service(**settings: object) -> Iterator[Running]:
    """`settings`: ALIGNER_* variables without the prefix, e.g. engine__workers=2."""
    environment = os.environ | {f"ALIGNER_{key.upper()}": str(value) for key, value in settings.items()}
    environment |= {"ALIGNER_SERVER__LISTEN": "127.0.0.1:0", "ALIGNER_SERVER__DRAIN_DELAY": "0"}
    command = [str(Path(sys.executable).with_name("aligner")), "serve", "--profile", "dev"]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        began = time.perf_counter()
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
        try:
            while not (found := _READY.search(log.read_text(errors="replace"))):
                if process.poll() is not None or time.perf_counter() - began > _WAIT_TIMEOUT:
                    raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.01)
            yield Running(found[1], process.pid, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()
