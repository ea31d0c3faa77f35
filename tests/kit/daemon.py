"""Real servers that tests start, pause and kill: what Redis and clamd have in common."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

WAIT_TIMEOUT = 30.0
"""Seconds that anything may take."""
# Below the range from which the kernel gives ports to clients: a server that is stopped gets its port back.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


class Daemon(ABC):
    """One server in a folder of its own, at the port it had before, else at a free one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """What to run; it may write the configuration, and logs into the file `log` of the folder."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether it is there; may raise OSError."""

    def start(self) -> None:
        """Returns when it answers. A port that was taken meanwhile is another try."""
        deadline = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < deadline:
            port = self.port or free_port()
            self._process = subprocess.Popen(
                self._command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._home
            )
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    if self._answers(port):
                        self.port = port
                        return
                time.sleep(0.01)
        raise AssertionError(f"{type(self).__name__} did not start:\n{(self._home / 'log').read_text()}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As a crash does: nothing is written, connections are cut."""
        if self.running:
            self._process.kill()
            self._process.wait(WAIT_TIMEOUT)

    def restart(self) -> None:
        """Killed and started again, at the same port."""
        self.resume()
        self.kill()
        self.start()

    def pause(self) -> None:
        """Connections stay, the kernel takes new ones, and nobody answers: what a cut cable looks like."""
        self._process.send_signal(signal.SIGSTOP)
        # A signal is delivered some time later; what was asked before would be answered still.
        deadline = time.monotonic() + WAIT_TIMEOUT
        while _state(self._process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
