"""A real PostgreSQL for tests: of its own, on loopback, in a directory that goes away. Skips where there is none."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.daemon import Daemon
from tests.kit.waiting import WAIT_TIMEOUT

USER, PASSWORD = "aligner", "s3cret/of:the@test"
QUOTED_PASSWORD = "s3cret%2Fof%3Athe%40test"
_FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "autovacuum=off",
    "max_wal_size=64MB",
)


def binaries() -> Path | None:
    """The newest installation's, in number; None if there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if found:
        return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdecimal() else 0)
    named = shutil.which("postgres")
    return Path(named).resolve().parent if named and shutil.which("initdb") else None


class Postgres(Daemon):
    """One server. It does not run as root, so that its files belong to the user postgres where the tests do."""

    def __init__(self, programs: Path, home: Path) -> None:
        super().__init__(home)
        self._programs = programs
        self._data = home / "data"
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._numbers = itertools.count()
        if self._user:
            os.chown(home, self._user.pw_uid, self._user.pw_gid)

    def make(self) -> None:
        password = self._home / "password"
        password.write_text(PASSWORD)
        self._run(
            "initdb", "-D", self._data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync", "-E", "UTF8"
        )

    def socket_url(self, database: str) -> str:
        """A URL of `database` by the Unix socket."""
        return f"postgres://{USER}:{QUOTED_PASSWORD}@/{database}?host={self._home}&port={self.port}"

    def stop(self) -> None:
        """Connections are cut, as in a crash that tidies up."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(WAIT_TIMEOUT)

    def pause(self) -> None:
        """Connections stay and nothing answers, as with a cut cable."""
        # The postmaster first, so that no process is made meanwhile.
        for pid in (self._process.pid, *self._children()):
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.running:
            for pid in (*self._children(), self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _command(self, port: int) -> list[Any]:
        options = [part for option in _FAST for part in ("-c", option)]
        return [self._programs / "postgres", "-D", self._data, "-h", "127.0.0.1", "-p", str(port), "-k", self._home, *options]

    def _answers(self, port: int) -> bool:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(command, check=False, cwd=self._home).returncode == 0

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return f"postgresql+asyncpg://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str) -> str:
        """What psql prints, unaligned."""
        done = subprocess.run(
            [self._programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database, "-XAtqc", statement],
            check=True,
            capture_output=True,
            text=True,
            cwd=self._home,
            env=os.environ | {"PGPASSWORD": PASSWORD},
        )
        return done.stdout.strip()

    def _children(self) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self._process.pid:
                    found.append(int(stat.parent.name))
        return found

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            cwd=self._home,
            **self._identity(),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _identity(self) -> dict[str, Any]:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """One more server."""
    programs = binaries()
    if programs is None or (os.geteuid() == 0 and not _user_exists()):
        pytest.skip("needs PostgreSQL")
    # Not below pytest's own directory, which the user postgres may not enter.
    home = Path(tempfile.mkdtemp(prefix="aligner-postgres-"))
    server = Postgres(programs, home)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.resume()
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Postgres]:
    """Shared by the tests of a file, each with a database of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """Runs when a test begins, whatever the one before did to it."""
    yield postgres_server
    postgres_server.resume()
    if not postgres_server.running:
        postgres_server.start()


def _user_exists() -> bool:
    return any(user.pw_name == "postgres" for user in pwd.getpwall())
