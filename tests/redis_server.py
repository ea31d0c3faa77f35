"""A real Redis for tests: of its own, on loopback, in a directory that goes away. Skips where there is none."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "s3cret/of:the@test"
_QUOTED_PASSWORD = "s3cret%2Fof%3Athe%40test"
_PATIENCE = 30.0
# Below the range from which the kernel gives ports to clients: a server that is stopped gets its port back.
_PORTS = range(20_000, 30_000)


class RedisServer:
    """One server, which keeps nothing when it ends: what a crash without a disk is."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._prefixes = (f"test{number}" for number in itertools.count())
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://:{_QUOTED_PASSWORD}@127.0.0.1:{self.port}/0"

    def prefix(self) -> str:
        """For the keys of one test."""
        return next(self._prefixes)

    def start(self) -> None:
        """At the port it had before, else at a free one."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            port = self.port or _free_port()
            options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._home}
            options |= {"logfile": "log", "daemonize": "no", "requirepass": PASSWORD}
            arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
            self._process = subprocess.Popen(
                [self._program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._home
            )
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    if self._answers(port):
                        self.port = port
                        return
                time.sleep(0.01)
        raise AssertionError(f"Redis did not start:\n{(self._home / 'log').read_text()}")

    def kill(self) -> None:
        """As a crash does: nothing is written, connections are cut."""
        if self.running:
            self._process.kill()
            self._process.wait(_PATIENCE)

    def restart(self) -> None:
        """Killed and started again, at the same port and empty."""
        self.resume()
        self.kill()
        self.start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Connections stay and nobody answers: what a cut cable looks like."""
        self._process.send_signal(signal.SIGSTOP)
        # A signal is delivered some time later; what was asked before would be answered still.
        deadline = time.monotonic() + _PATIENCE
        while _state(self._process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """What the server answers, the first lines of it, as it is on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as connection:
            connection.sendall(_line("AUTH", PASSWORD) + _line(*words))
            received = b""
            while received.count(b"\r\n") < 2 and (more := connection.recv(65536)):
                received += more
            return received.decode().partition("\r\n")[2]

    def _answers(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(_line("AUTH", PASSWORD))
            return connection.recv(64) == b"+OK\r\n"


def _line(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"".join(parts)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Shared by the tests of a file, each with a prefix of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Redis")
    home = Path(tempfile.mkdtemp(prefix="aligner-redis-"))
    server = RedisServer(program, home)
    try:
        server.start()
        yield server
    finally:
        server.resume()
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Runs when a test begins, whatever the one before did to it."""
    yield redis_server
    redis_server.resume()
    if not redis_server.running:
        redis_server.start()
