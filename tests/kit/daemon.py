"""Real servers that tests start, pause and kill: the base of Redis, clamd and PostgreSQL."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.kit.waiting import WAIT_TIMEOUT, eventually_blocking

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
        """What to run. May write the configuration, and logs to `log` in the folder, where stdout and stderr go too."""

    def _identity(self) -> dict[str, Any]:
        """The user that it runs as: arguments of subprocess."""
        return {}

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether it serves; may raise OSError."""

    def start(self) -> None:
        """Returns when it answers. A port that was taken meanwhile is another try."""
        for _ in range(20):
            port = self.port or free_port()
            with (self._home / "log").open("ab") as log:
                self._process = subprocess.Popen(self._command(port), stdout=log, stderr=log, cwd=self._home, **self._identity())
            eventually_blocking(lambda port=port: not self.running or self._is_there(port), f"{type(self).__name__} answers")
            if self.running:
                self.port = port
                return
        raise AssertionError(f"{type(self).__name__} did not start:\n{(self._home / 'log').read_text()}")

    def _is_there(self, port: int) -> bool:
        with contextlib.suppress(OSError):
            return self._answers(port)
        return False

    @property
    def home(self) -> Path:
        """Its folder."""
        return self._home

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
        """Connections stay, the kernel accepts new ones, and nothing answers, as with a cut cable."""
        self._process.send_signal(signal.SIGSTOP)
        # A signal takes effect some time later; until then requests would still be answered.
        eventually_blocking(lambda: _state(self._process.pid) == "T", "the process stops")

    def resume(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
