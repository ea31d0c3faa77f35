"""The servers of the fairness bench: the real one, of the prod profile on loopback, with an engine of known capacity."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.limits import DecodeSettings, ServerSettings
from aligner_svc.config.protection import QuotaSettings
from aligner_svc.config.security import AuditSettings, AuthSettings, Issuer, JwtSettings
from aligner_svc.domain import Caller, Clip, ProgressSink, Token, WordStatus
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, Span
from aligner_svc.errors import LimitExceededError
from aligner_svc.server import Service
from aligner_svc.telemetry.logs.pipeline import open_logs
from aligner_svc.text import tokenise

ISSUER = "https://issuer.example.org"
SLOTS, WORK, QUEUE = 4, 0.1, 64


class SleepingEngine:
    """Engine (aligner_svc/engines/base.py) that sleeps for WORK seconds a call, SLOTS calls at a time."""

    name = "slots"
    languages = frozenset({"en"})
    max_seconds = None
    capacity = Capacity(lowest=SLOTS, at_once=SLOTS)
    report = EngineReport()

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(SLOTS)
        self._waiting = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        return tokenise(transcript, language)

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        if self._waiting >= QUEUE:
            raise LimitExceededError("ENGINE_QUEUE_FULL", "the engine's queue is full")
        came = time.monotonic()
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        began = time.monotonic()
        try:
            await asyncio.sleep(WORK)
        finally:
            self._slots.release()
        spans = [Span(0.0, clip.seconds, 0.5, WordStatus.ALIGNED)] * len(tokens)
        return EngineResult(spans, match_score=1.0, queued=began - came, busy=time.monotonic() - began)

    async def close(self) -> None:
        """Nothing to release."""


def tokens(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """A token for each name, like an issuer's, with the issuer's keys in jwks.json."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "bench", "use": "sig", "alg": "ES256"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [public]}))
    now = int(time.time())
    same = {"iss": ISSUER, "aud": "aligner", "iat": now, "exp": now + 4 * 3600, "scope": "align"}
    headers = {"kid": "bench", "typ": "at+jwt"}
    return {
        name: jwt.encode(same | {"sub": name, "client_id": name, "jti": name}, key, "ES256", headers=headers) for name in names
    }


def serve(folder: str, quotas: str, engine: str, pipe: Connection) -> None:
    """The server process: sends its address, and ends when the pipe closes."""
    asyncio.run(_serve(Path(folder), Path(quotas), engine, pipe))


async def _serve(folder: Path, quotas: Path, engine: str, pipe: Connection) -> None:
    settings = Settings(
        server=ServerSettings(profile="prod", listen="127.0.0.1:0", drain_delay=0.0, drain_grace=1.0),
        engine=EngineSettings(name="pocketsphinx", queue=QUEUE, **({"workers": SLOTS} if engine == "slots" else {})),
        decode=DecodeSettings(workers=1),
        auth=AuthSettings(methods=("jwt",)),
        jwt=JwtSettings(issuers=(Issuer(issuer=ISSUER, audience=("aligner",), jwks_file=folder / "jwks.json"),)),
        audit=AuditSettings(file=folder / f"{quotas.stem}.jsonl"),
        quota=QuotaSettings(file=quotas),
    )
    # Without open_logs the log would go to stderr, into the bench's report.
    with (folder / f"{quotas.stem}.log").open("w") as lines, open_logs("json", stream=lines):
        service = Service(settings, SleepingEngine() if engine == "slots" else None)
        await service.start()
        pipe.send(service.address)
        with suppress(EOFError):
            await asyncio.to_thread(pipe.recv)
        await service.close()
