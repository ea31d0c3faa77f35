"""Servers on free loopback ports: in this process, or as the command a person runs."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import grpc

from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.config.http import HttpSettings
from aligner_svc.config.limits import DecodeSettings, Limits, ServerSettings, StreamSettings
from aligner_svc.config.protection import AbuseSettings, AntivirusSettings, ConnectionSettings, OverloadSettings, QuotaSettings
from aligner_svc.config.security import AuditSettings, AuthSettings, JwtSettings, KeySettings, TlsSettings
from aligner_svc.config.telemetry import MetricsSettings, TracingSettings
from aligner_svc.engines.base import Engine
from aligner_svc.server import Service
from tests.kit.waiting import WAIT_TIMEOUT, eventually

ALIGNER = Path(sys.executable).with_name("aligner")

_READY = re.compile(rb"aligner-svc ready on (\S+:\d+)")
# A proxy from the environment has no business on loopback; every channel has a connection of its own.
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def connect(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, _OPTIONS)


@asynccontextmanager
async def calling(target: str) -> AsyncIterator[AlignerStub]:
    """The generated stub over a connection of its own."""
    async with connect(target) as channel:
        yield AlignerStub(channel)


def service(
    *,
    workers: int = 1,
    decoders: int = 1,
    engine: Engine | None = None,
    qwen: QwenSettings | None = None,
    limits: Limits | None = None,
    stream: StreamSettings | None = None,
    listen: str = "127.0.0.1:0",
    profile: Literal["dev", "prod"] = "dev",
    tls: TlsSettings | None = None,
    auth: AuthSettings | None = None,
    jwt: JwtSettings | None = None,
    keys: KeySettings | None = None,
    audit: AuditSettings | None = None,
    engine_settings: EngineSettings | None = None,
    quota: QuotaSettings | None = None,
    overload: OverloadSettings | None = None,
    abuse: AbuseSettings | None = None,
    connections: ConnectionSettings | None = None,
    antivirus: AntivirusSettings | None = None,
    tracing: TracingSettings | None = None,
    metrics: MetricsSettings | None = None,
    http: HttpSettings | None = None,
) -> Service:
    """Not started. Every section is given, so that no variable and no settings file of the machine has a say.

    Nor has its load, for which a server sheds calls. `qwen`: have that engine, and not pocketsphinx.
    """
    built = Service(
        Settings(
            server=ServerSettings(profile=profile, listen=listen, drain_delay=0.0, drain_grace=WAIT_TIMEOUT),
            http=http or HttpSettings(),
            limits=limits or Limits(),
            decode=DecodeSettings(workers=decoders),
            engine=engine_settings or EngineSettings(name="qwen" if qwen else "pocketsphinx", workers=workers),
            qwen=qwen or QwenSettings(),
            stream=stream or StreamSettings(),
            tls=tls or TlsSettings(),
            auth=auth or AuthSettings(),
            jwt=jwt or JwtSettings(),
            keys=keys or KeySettings(),
            audit=audit or AuditSettings(),
            quota=quota or QuotaSettings(),
            overload=overload or OverloadSettings(pressure=False),
            abuse=abuse or AbuseSettings(),
            metrics=metrics or MetricsSettings(),
            tracing=tracing or TracingSettings(),
            antivirus=antivirus or AntivirusSettings(),
            connections=connections or ConnectionSettings(),
        )
    )
    if engine is not None:
        built.engine = engine
    return built


@asynccontextmanager
async def serving(**parts: Any) -> AsyncIterator[Service]:
    """`service(**parts)`, running."""
    running = service(**parts)
    await running.start()
    try:
        yield running
    finally:
        await running.drain()


def listening(target: str) -> bool:
    """Whether a new connection to HOST:PORT is taken; one that is reset came while the door was being closed."""
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=WAIT_TIMEOUT).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


class Command:
    """`aligner serve`, started by `launched`; stdout and stderr are in `log`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def ready(self) -> str:
        """HOST:PORT, once the server says that it is ready."""
        await eventually(lambda: self._target() is not None or self.process.returncode is not None, "the server to be ready")
        target = self._target()
        assert target is not None, f"the server ended with {self.process.returncode}:\n{self.log}"
        return target

    async def exit_code(self) -> int:
        async with asyncio.timeout(WAIT_TIMEOUT):
            return await self.process.wait()

    def children(self) -> list[int]:
        """Its worker processes."""
        return [pid for pid in _processes() if _parent(pid) == self.process.pid]

    def _target(self) -> str | None:
        found = _READY.search(self._log.read_bytes())
        return found[1].decode() if found else None


def environment(**variables: str) -> dict[str, str]:
    """The environment without the settings and proxies of the person who runs the tests; the machine's load sheds no calls."""
    ours = {name: value for name, value in os.environ.items() if not re.match(r"ALIGNER_|.*_proxy$", name, re.IGNORECASE)}
    return ours | {"ALIGNER_OVERLOAD__PRESSURE": "false"} | variables


@asynccontextmanager
async def launched(folder: Path, *arguments: str, **variables: str) -> AsyncIterator[Command]:
    """`aligner serve *arguments` in `folder`. What is still there at the end is killed."""
    log = folder / "server.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            ALIGNER, "serve", "--workers", "1", *arguments, cwd=folder, stdout=sink, stderr=sink, env=environment(**variables)
        )
    command = Command(process, log)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def gone(pids: Sequence[int]) -> None:
    """Wait until none of the processes runs any more."""
    await eventually(lambda: not any(_state(pid) not in "ZX" for pid in pids), f"processes {pids} to end")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])
