"""What a run needs: the service as people start it, in the prod profile, with a Prometheus and what else is installed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from bench.fairness_server import ISSUER, tokens
from tests.kit.clamd_server import ClamdServer, running_clamd
from tests.kit.daemon import Daemon, free_port
from tests.kit.redis_server import RedisServer
from tests.kit.servers import Command, environment, launched

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"
JOB, INSTANCE = "aligner", "aligner-0"
SCRAPE = 1
"""Seconds between scrapes."""
_CLAMD_PATH = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"
_SCAN_BYTES = 12 << 20
# The instance is named as a pod is: ports differ from run to run, and pictures should not.
_CONFIG = """\
global: {{scrape_interval: {scrape}s, scrape_timeout: {scrape}s, evaluation_interval: {scrape}s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: [{target}], labels: {{instance: {instance}}}}}]
"""
_QUOTAS = """\
[classes.default]
requests_per_second = 40
calls_in_flight = 64
[classes.batch]
requests_per_second = 20
priority = "low"
[classes.trial]
requests_per_second = 1
burst = 3
audio_seconds_per_minute = 120
[principals]
"{trial}" = "trial"
"jwt:{issuer}#batch" = "batch"
"""


class PrometheusServer(Daemon):
    """One that scrapes a target every second and works through the rules."""

    def __init__(self, program: str, home: Path, target: str) -> None:
        super().__init__(home)
        self._program = program
        self._target = target

    def query_range(self, promql: str, start: float, end: float, step: int) -> list[dict[str, Any]]:
        """Series with their values between two Unix times. Raises OSError for PromQL that it does not take."""
        arguments = urlencode({"query": promql, "start": start, "end": end, "step": step})
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/query_range?{arguments}", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def _command(self, port: int) -> list[str]:
        configuration = self._home / "prometheus.yaml"
        configuration.write_text(
            _CONFIG.format(scrape=SCRAPE, rules=RULES, job=JOB, instance=INSTANCE, target=self._target), encoding="utf-8"
        )
        data = f"--storage.tsdb.path={self._home / 'data'}"
        return [self._program, f"--config.file={configuration}", data, f"--web.listen-address=127.0.0.1:{port}"]

    def _answers(self, port: int) -> bool:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What callers show, as metadata."""

    people: tuple[str, str]
    batch: tuple[str, str]
    stranger: tuple[str, str]
    """Signed by somebody who says to be the issuer."""
    trial: tuple[str, str]
    mistyped: tuple[str, str]
    """That key with another last character."""
    reader: tuple[str, str]
    """A key that is good, for something else."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A running service and all around it."""

    address: str
    ca: bytes
    credentials: Credentials
    server: Command
    prometheus: PrometheusServer
    redis: RedisServer | None
    clamd: ClamdServer | None


@asynccontextmanager
async def running() -> AsyncIterator[Scene]:
    """Everything is new, and gone afterwards. Raises SystemExit where there is no Prometheus."""
    prometheus_program = shutil.which("prometheus")
    if prometheus_program is None:
        raise SystemExit("a run needs Prometheus: apt-get install prometheus")
    with ExitStack() as stack:
        home = stack.enter_context(_folder())
        redis = stack.enter_context(_redis())
        clamd = stack.enter_context(running_clamd()) if shutil.which("clamd", path=_CLAMD_PATH) else None
        metrics = f"127.0.0.1:{free_port()}"
        variables, credentials = _prepared(home, metrics, redis, clamd)
        async with launched(home, "--profile", "prod", "--workers", str(os.cpu_count() or 1), **variables) as server:
            address = await server.ready()
            prometheus = PrometheusServer(prometheus_program, stack.enter_context(_folder()), metrics)
            stack.callback(prometheus.kill)
            prometheus.start()
            ca = (home / "certificates" / "ca.pem").read_bytes()
            yield Scene(address, ca, credentials, server, prometheus, redis, clamd)
            server.process.terminate()
            await server.exit_code()


def _prepared(
    home: Path, metrics: str, redis: RedisServer | None, clamd: ClamdServer | None
) -> tuple[dict[str, str], Credentials]:
    """The server's settings, with what its files need written, and who can call it."""
    (home / "strangers").mkdir()
    good = tokens(home, ["people", "batch"])
    forged = tokens(home / "strangers", ["people"])
    variables = {
        "ALIGNER_SERVER__LISTEN": "127.0.0.1:0",
        "ALIGNER_METRICS__LISTEN": metrics,
        "ALIGNER_TLS__CERTIFICATE": str(home / "certificates" / "server.pem"),
        "ALIGNER_TLS__KEY": str(home / "certificates" / "server.key"),
        "ALIGNER_AUTH__METHODS": "jwt,api_key",
        "ALIGNER_JWT__ISSUERS": json.dumps([{"issuer": ISSUER, "audience": ["aligner"], "jwks_file": str(home / "jwks.json")}]),
        "ALIGNER_KEYS__DATABASE": f"sqlite+aiosqlite:///{home / 'keys.db'}",
        "ALIGNER_KEYS__PEPPER_FILE": str(home / "pepper"),
        "ALIGNER_AUDIT__FILE": str(home / "audit.jsonl"),
        "ALIGNER_QUOTA__FILE": str(home / "quotas.toml"),
        # Only the address that the attacker's calls come from is one of a stranger.
        "ALIGNER_ABUSE__TRUSTED": "127.0.0.1/32",
    }
    if redis is not None:
        variables["ALIGNER_QUOTA__REDIS"] = redis.url
    if clamd is not None:
        variables |= {"ALIGNER_ANTIVIRUS__ADDRESS": clamd.unix, "ALIGNER_ANTIVIRUS__STREAM_MAX_BYTES": str(_SCAN_BYTES)}
    _aligner(["devcerts", str(home / "certificates")], variables)
    trial = _key("trial", "align", variables)
    reader = _key("reader", "reports", variables)
    (home / "quotas.toml").write_text(_QUOTAS.format(trial=f"key:{trial.split('_')[1]}", issuer=ISSUER), encoding="utf-8")
    return variables, Credentials(
        people=_bearer(good["people"]),
        batch=_bearer(good["batch"]),
        stranger=_bearer(forged["people"]),
        trial=("x-api-key", trial),
        mistyped=("x-api-key", trial[:-1] + ("A" if trial[-1] != "A" else "B")),
        reader=("x-api-key", reader),
    )


def _bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def _key(label: str, scope: str, variables: dict[str, str]) -> str:
    return _aligner(["keys", "create", "--label", label, "--scope", scope], variables)


def _aligner(arguments: list[str], variables: dict[str, str]) -> str:
    command = [str(Path(sys.executable).with_name("aligner")), *arguments]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise SystemExit(f"aligner {arguments[0]} failed:\n{done.stderr}")
    return done.stdout.strip()


@contextmanager
def _folder() -> Iterator[Path]:
    home = Path(mkdtemp(prefix="aligner-panels-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _redis() -> Iterator[RedisServer | None]:
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with _folder() as home:
        server = RedisServer(program, home)
        server.start()
        try:
            yield server
        finally:
            server.kill()
