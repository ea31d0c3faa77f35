"""A prod server with everything it can depend on: clamd, Redis, PostgreSQL, an identity provider."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from pydantic import SecretStr

from interceptors.auth.api_keys.format import ApiKey
from tests.kit.clamd_server import ClamdServer, running_clamd
from tests.kit.guarded import Home, bearer, with_key
from tests.kit.postgres import Postgres, running_postgres
from tests.kit.prod_process import ProdProcess, prod_process
from tests.kit.redis_server import RedisServer, running_redis
from tests.kit.scripted_issuer import JWKS, ScriptedIssuer, scripted_issuer

_UPLOAD_BYTES = 12 << 20
DECODER, ALIGNER = "audio.decode_worker", "pocketsphinx.worker"
"""In the command lines of worker processes."""


@dataclass(frozen=True)
class Site:
    """`key`: a good API key; tokens are of `home.forge`, whose keys the server fetches from `issuer`."""

    server: ProdProcess
    clamd: ClamdServer
    redis: RedisServer
    postgres: Postgres
    issuer: ScriptedIssuer
    key: ApiKey
    scratch: Path

    @property
    def home(self) -> Home:
        return self.server.home

    def credentials(self) -> tuple[Callable[[], tuple[str, str]], ...]:
        """A key, and a new token at every call."""
        return (lambda: with_key(self.key), lambda: bearer(self.home.forge.token()))

    def workers(self, kind: str) -> list[int]:
        """The process ids of the server's workers of this kind."""
        found = []
        for pid in self.server.command.children():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text(encoding="ascii")
            except OSError:
                continue
            if kind in command:
                found.append(pid)
        return found

    def command_children(self) -> list[int]:
        """All worker processes."""
        return self.server.command.children()

    def send(self, pids: list[int], number: signal.Signals) -> None:
        """A signal to worker processes; one that has ended meanwhile is as good as hit."""
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def channel(self) -> grpc.aio.Channel:
        return self.server.channel()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Skips, as a test does, where a service is not installed."""
    async with AsyncExitStack() as stack:
        home_folder, scratch = (Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aligner-chaos-"))) for _ in range(2))
        clamd = stack.enter_context(running_clamd(stream_max_bytes=_UPLOAD_BYTES))
        redis = stack.enter_context(running_redis())
        postgres = stack.enter_context(running_postgres())
        issuer = await stack.enter_async_context(scripted_issuer())
        home = Home(home_folder, mtls=False)
        home.keys = home.keys.model_copy(update={"database": SecretStr(postgres.database())})
        issuer.publish(home.forge.jwks())
        settings = {
            "LIMITS__STREAM_AUDIO_BYTES": _UPLOAD_BYTES,
            "LIMITS__AUDIO_SECONDS": 60,
            "ANTIVIRUS__ADDRESS": clamd.unix,
            "ANTIVIRUS__STREAM_MAX_BYTES": _UPLOAD_BYTES,
            "QUOTA__REDIS": redis.url,
            "JWT__ISSUERS": f'[{{"issuer": "{home.forge.issuer}", "audience": ["aligner"], "jwks_url": "{issuer.url}{JWKS}"}}]',
            "JWT__KEYS_REFRESH": 10,
        }
        server = await stack.enter_async_context(prod_process(home, scratch, workers=2, **settings))
        key = await home.new_key("align")
        yield Site(server, clamd, redis, postgres, issuer, key, scratch)
