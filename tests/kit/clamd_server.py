"""A real clamd for tests: signatures of its own, two sockets, a directory that goes away. Skips where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import socket
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.waiting import WAIT_TIMEOUT, eventually_blocking

EICAR = rb"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\4[PA@%P!O5X"[::-1]
"""The test virus, backwards: scanners would flag this file."""
SIGNATURE = "Eicar-Test-Signature.UNOFFICIAL"
"""As clamd names it where the signature is not ClamAV's own."""
MIB = 1 << 20


class ClamdServer(Daemon):
    """One daemon that knows EICAR, and takes streams of up to `stream_max_bytes`.

    `settings` are further lines of its configuration. `versioned` False: it has signatures of an operator's own alone, and no
    version of them to tell.
    """

    def __init__(
        self, program: str, home: Path, *, stream_max_bytes: int = 12 * MIB, settings: str = "", versioned: bool = True
    ) -> None:
        super().__init__(home)
        self.stream_max_bytes = stream_max_bytes
        self.signatures = 27_000
        """Their version."""
        self.path = home / "clamd.ctl"
        self._program = program
        self._settings = settings
        self._versioned = versioned
        self._extra: dict[str, bytes] = {}
        self._made = int(time.time())

    @property
    def unix(self) -> str:
        return f"unix:{self.path}"

    @property
    def tcp(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def address(self, kind: str) -> str:
        return {"unix": self.unix, "tcp": self.tcp}[kind]

    def start(self, with_signatures: Mapping[str, bytes] | None = None) -> None:
        """At the addresses it had before; with more signatures, though of the same version."""
        self._extra |= with_signatures or {}
        for folder in ("signatures", "tmp"):
            (self._home / folder).mkdir(exist_ok=True)
        self._write_signatures()
        super().start()

    def _command(self, port: int) -> list[str]:
        configuration = self._home / "clamd.conf"
        configuration.write_text(
            f"DatabaseDirectory {self._home / 'signatures'}\nTemporaryDirectory {self._home / 'tmp'}\n"
            f"LocalSocket {self.path}\nFixStaleSocket yes\nTCPSocket {port}\nTCPAddr 127.0.0.1\nForeground yes\nSelfCheck 0\n"
            f"StreamMaxLength {self.stream_max_bytes}\nLogFile {self._home / 'log'}\n{self._settings}\n"
        )
        return [self._program, "-c", str(configuration)]

    def _answers(self, port: int) -> bool:
        return self.command("PING") == "PONG" and self._reached(port)

    def learn(self, name: str, pattern: bytes) -> None:
        """One more signature, and the version that comes with it; returns when clamd goes by it."""
        self._extra[name] = pattern
        self.signatures += 1
        self._write_signatures()
        assert self.command("RELOAD") == "RELOADING"
        eventually_blocking(lambda: f"/{self.signatures}/" in self.command("VERSION"), "clamd uses the new signatures")

    def command(self, word: str) -> str:
        """What the daemon answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT_TIMEOUT)
            connection.connect(str(self.path))
            connection.sendall(b"z%s\0" % word.encode())
            received = b""
            while more := connection.recv(65536):
                received += more
        return received.rstrip(b"\0").decode()

    def _reached(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"zPING\0")
            return connection.recv(16) == b"PONG\0"

    def _write_signatures(self) -> None:
        lines = "".join(
            f"{name}:0:*:{pattern.hex()}\n" for name, pattern in {"Eicar-Test-Signature": EICAR, **self._extra}.items()
        ).encode()
        folder = self._home / "signatures"
        if self._versioned:
            (folder / "daily.cud").write_bytes(_unsigned_database(self.signatures, self._made, lines))
        else:
            (folder / "own.ndb").write_bytes(lines)


def _unsigned_database(version: int, made: int, lines: bytes) -> bytes:
    """What `sigtool --build --unsigned` makes: under the name "daily" its version and time are what VERSION tells."""
    day = time.strftime("%d %b %Y %H-%M +0000", time.gmtime(made))

    def header(md5: str) -> str:
        return f"ClamAV-VDB:{day}:{version}:1:90:{md5}:X:test:{made}"

    listed = f"{header('X')}\ndaily.ndb:{len(lines)}:{hashlib.sha256(lines).hexdigest()}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("COPYING", b"for tests"), ("daily.info", listed), ("daily.ndb", lines)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    md5 = hashlib.md5(packed.getvalue(), usedforsecurity=False).hexdigest()
    return header(md5).encode().ljust(512) + packed.getvalue()


@contextlib.contextmanager
def running_clamd(*, stream_max_bytes: int = 12 * MIB, settings: str = "", versioned: bool = True) -> Iterator[ClamdServer]:
    """One more, for a test that needs it otherwise than the others."""
    program = shutil.which("clamd", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("needs clamd")
    home = Path(tempfile.mkdtemp(prefix="aligner-clamd-"))
    server = ClamdServer(program, home, stream_max_bytes=stream_max_bytes, settings=settings, versioned=versioned)
    try:
        server.start()
        yield server
    finally:
        server.resume()
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def clamd_server() -> Iterator[ClamdServer]:
    """Shared by the tests of a file."""
    with running_clamd() as server:
        yield server


@pytest.fixture
def clamav(clamd_server: ClamdServer) -> Iterator[ClamdServer]:
    """Runs when a test begins, whatever the one before did to it."""
    yield clamd_server
    clamd_server.resume()
    if not clamd_server.running:
        clamd_server.start()
