"""`aligner doctor`: it reports faults of real services and files with a hint, and shows no secrets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc import __version__
from aligner_svc.cli.doctor import doctor
from aligner_svc.config import Settings
from aligner_svc.doctor.examination import NAMES, checks

app = typer.Typer()
app.command()(doctor)


def run(*arguments: object, **variables: str):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200", **variables})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def report(*arguments: object, **variables: str) -> dict[str, list[dict]]:
    """Findings by check."""
    result = run(*arguments, "--format", "json", **variables)
    answer = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["ok"] else 1)
    found: dict[str, list[dict]] = {}
    for one in answer["findings"]:
        found.setdefault(one["check"], []).append(one)
    return found


def settings(**sections) -> Settings:
    return Settings(**sections)


def test_a_usable_machine_has_no_failed_check() -> None:
    found = report("--timeout", "30", ALIGNER_SERVER__LISTEN="127.0.0.1:0")
    assert set(found) == set(NAMES) - {"target"}
    assert {one["state"] for listed in found.values() for one in listed} <= {"ok", "warn", "skip"}
    assert found["engine"][0]["state"] == "ok"
    assert found["sandbox"][0]["said"].startswith(("in force:", "no "))


def test_every_fault_has_a_hint_and_none_shows_a_secret() -> None:
    issuers = json.dumps([{"issuer": "http://127.0.0.1:1", "audience": ["a"]}])
    variables = {
        "ALIGNER_SERVER__PROFILE": "prod",
        "ALIGNER_AUTH__METHODS": "jwt,api_key",
        "ALIGNER_AUTH__POLICY": "absent.toml",
        "ALIGNER_JWT__ISSUERS": issuers,
        "ALIGNER_KEYS__DATABASE": "sqlite+aiosqlite:///absent.db",
        "ALIGNER_QUOTA__REDIS": "redis://user:hunter2@127.0.0.1:1/0",
        "ALIGNER_QUOTA__FILE": "absent.toml",
        "ALIGNER_ANTIVIRUS__ADDRESS": "tcp://127.0.0.1:1",
        "ALIGNER_AUDIT__FILE": "no/such/folder/audit.log",
        "ALIGNER_KEYS__PEPPER": "hunter2" * 5,
        "ALIGNER_LIMIT__AUDIO_SECONDS": "3",
    }
    result = run("--timeout", "30", **variables)
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    found = report("--timeout", "30", **variables)
    failed = {check for check, listed in found.items() if any(one["state"] == "fail" for one in listed)}
    assert failed >= {"policy", "quotas", "jwks", "keys", "redis", "clamd", "audit"}
    assert all(one["hint"] for listed in found.values() for one in listed if one["state"] in {"warn", "fail"})
    assert "did you mean ALIGNER_LIMITS__AUDIO_SECONDS" in found["settings"][1]["said"]
    assert not Path("absent.db").exists()


def test_invalid_settings_are_the_only_finding() -> None:
    found = report(ALIGNER_LIMITS__AUDIO_SECONDS="never")
    assert found == {"settings": found["settings"]}
    assert found["settings"][0]["said"].startswith("ALIGNER_LIMITS__AUDIO_SECONDS: ")
    result = run("--only", "nonsense")
    assert result.exit_code == 2
    assert "there is no check nonsense" in result.output


def test_a_port_in_use_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (found,) = report("--only", "listen", ALIGNER_SERVER__LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")["listen"]
    assert (found["state"], "taken" in found["said"]) == ("warn", True)
    (found,) = report("--only", "listen", ALIGNER_SERVER__LISTEN="0.0.0.0:0")["listen"]
    assert (found["state"], "other machines" in found["said"]) == ("fail", True)


class Info(aligner_pb2_grpc.AlignerServicer):
    def __init__(self) -> None:
        self.version = __version__

    def GetServerInfo(self, request, context):  # noqa: N802
        return aligner_pb2.GetServerInfoResponse(version=self.version, engine="scripted", languages=["en"])


@pytest.fixture
def remote() -> Iterator[tuple[str, Info, health.HealthServicer]]:
    """A server in threads, because the command runs its own event loop."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    server, info, state = grpc.server(ThreadPoolExecutor(4)), Info(), health.HealthServicer()
    aligner_pb2_grpc.add_AlignerServicer_to_server(info, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    state.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", info, state
    server.stop(0).wait()


def test_a_running_server_is_checked(remote) -> None:
    target, info, state = remote
    found = report("--target", target, "--only", "target")["target"]
    assert [one["state"] for one in found] == ["ok", "ok"]
    assert "engine scripted" in found[1]["said"]
    info.version = "99.0.0"
    found = report("--target", target, "--only", "target")["target"]
    assert (found[1]["state"], f"this client has version {__version__}" in found[1]["said"]) == ("warn", True)
    state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert report("--only", "target", ALIGNER_CLIENT_TARGET=target)["target"][0]["state"] == "warn"


def test_an_unavailable_server_fails(remote) -> None:
    (found,) = report("--target", "127.0.0.1:1", "--only", "target")["target"]
    assert (found["state"], "no answer" in found["said"]) == ("fail", True)
    (found,) = report("--target", remote[0], "--tls", "--only", "target")["target"]
    assert found["state"] == "fail"
    assert "TLS" in found["said"] + found["hint"]


def test_no_server_is_called_unless_a_target_is_given() -> None:
    assert "target" not in report("--only", "target", "--only", "clock")
    assert {check.name for check in checks(settings())} == set(NAMES) - {"settings", "target"}
