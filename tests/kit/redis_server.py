"""A real Redis for tests: of its own, on loopback, in a directory that goes away. Skips where there is none."""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.waiting import WAIT_TIMEOUT

PASSWORD = "s3cret/of:the@test"
_QUOTED_PASSWORD = "s3cret%2Fof%3Athe%40test"


class RedisServer(Daemon):
    """One server, which keeps nothing when it ends: what a crash without a disk is."""

    def __init__(self, program: str, home: Path) -> None:
        super().__init__(home)
        self._program = program
        self._prefixes = (f"test{number}" for number in itertools.count())

    @property
    def url(self) -> str:
        return f"redis://:{_QUOTED_PASSWORD}@127.0.0.1:{self.port}/0"

    def prefix(self) -> str:
        """For the keys of one test."""
        return next(self._prefixes)

    def _command(self, port: int) -> list[str]:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._home}
        options |= {"logfile": "log", "daemonize": "no", "requirepass": PASSWORD}
        return [self._program, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def command(self, *words: str) -> str:
        """What the server answers, the first lines of it, as it is on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_TIMEOUT) as connection:
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


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """One more server."""
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


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Shared by the tests of a file, each with a prefix of its own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Runs when a test begins, whatever the one before did to it."""
    yield redis_server
    redis_server.resume()
    if not redis_server.running:
        redis_server.start()
