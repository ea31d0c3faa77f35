"""`aligner doctor`: it reports faults of real services and files with a hint, and shows no secrets."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import stat
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from aligner_svc import __version__
from aligner_svc.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.cli.doctor import doctor
from aligner_svc.config import Settings
from aligner_svc.doctor import engine, files, machine, services
from aligner_svc.doctor.examination import NAMES, checks
from aligner_svc.health.findings import Check, Finding, Severity, blocking, examine
from aligner_svc.wiring.api_keys import make_pepper, open_store
from tests.kit import certificates
from tests.kit.clamd_server import ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.redis_server import PASSWORD, RedisServer, redis, redis_server  # noqa: F401 - fixtures
from tests.kit.scripted_issuer import scripted_issuer
from tests.kit.token_forge import ec_key, jwks

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


def states(found) -> list[Severity]:
    return [one.state for one in found]


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
        "ALIGNER_AUTH__METHODS": "jwt,api_key,mtls",
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
    assert failed >= {"auth", "policy", "quotas", "jwks", "keys", "redis", "clamd", "audit"}
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


def test_checks_run_concurrently_and_each_has_a_timeout() -> None:
    together = threading.Barrier(2)
    stuck = threading.Event()

    def meet() -> list[Finding]:
        together.wait(30)
        return [Finding("met", Severity.OK, "well")]

    async def hang() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    def fail() -> list[Finding]:
        raise ValueError("the password is hunter2")

    def block() -> list[Finding]:
        stuck.wait(60)
        return []

    found = asyncio.run(
        examine(
            [blocking("a", meet), blocking("b", meet), Check("c", hang, 0.01), blocking("d", fail), blocking("e", block, 0.01)],
            10.0,
        )
    )
    stuck.set()
    assert [one.state for one in found] == [Severity.OK, Severity.OK, Severity.FAIL, Severity.WARN, Severity.FAIL]
    assert "no answer within 0.1 s" in found[2].said
    assert "ValueError" in found[3].said
    assert "hunter2" not in str(found)


def test_secrets_are_removed_from_findings() -> None:
    async def careless() -> list[Finding]:
        return [Finding("x", Severity.FAIL, "redis://:hunter2@cache\x1b[2J", "authorization: Bearer hunter2hunter2")]

    (found,) = asyncio.run(examine([Check("x", careless)], 5.0))
    assert "hunter2" not in str(found)
    assert "\x1b" not in found.said


def test_a_port_in_use_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (found,) = report("--only", "listen", ALIGNER_SERVER__LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")["listen"]
    assert (found["state"], "taken" in found["said"]) == ("warn", True)
    (found,) = report("--only", "listen", ALIGNER_SERVER__LISTEN="0.0.0.0:0")["listen"]
    assert (found["state"], "other machines" in found["said"]) == ("fail", True)


def test_certificates_are_read_as_the_server_reads_them(tmp_path) -> None:
    given = certificates.Files(tmp_path)
    given.key.chmod(0o600)
    tls = {"certificate": given.certificate, "key": given.key, "client_ca": given.client_ca}
    found = files.tls(settings(tls=tls))
    assert states(found) == [Severity.OK]
    assert "ends in 30 days" in found[0].said
    given.key.chmod(0o644)
    assert states(files.tls(settings(tls=tls))) == [Severity.OK, Severity.WARN]
    given.write(certificates.server(given.ca, days=5))
    given.key.chmod(0o600)
    found = files.tls(settings(tls=tls))
    assert (states(found), found[0].hint.startswith("renew it")) == ([Severity.WARN], True)
    given.key.write_bytes(certificates.server(given.ca).key_pem)
    (found,) = files.tls(settings(tls=tls))
    assert (found.state, "does not belong" in found.said) == (Severity.FAIL, True)


def test_a_policy_is_checked_against_the_served_methods(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    auth = {"methods": ["jwt"], "policy": path}
    assert states(files.policy(settings(auth={"methods": ["jwt"]}))) == [Severity.OK]
    path.write_text('[methods]\n"/aligner.v1.Aligner/Aling" = ["align"]\n')
    (found,) = files.policy(settings(auth=auth))
    assert (found.state, "Aling" in found.said) == (Severity.FAIL, True)


async def test_the_keys_of_an_issuer_are_fetched() -> None:
    async with scripted_issuer() as issuer:
        wanted = settings(auth={"methods": ["jwt"]}, jwt={"issuers": [{"issuer": issuer.url, "audience": ["a"]}]})
        assert states(await services.jwks(wanted)) == [Severity.FAIL]
        issuer.publish(jwks(ec_key("one")))
        (found,) = await services.jwks(wanted)
        assert (found.state, "1 keys" in found.said) == (Severity.OK, True)
        issuer.publish(b'{"keys": []}')
        assert states(await services.jwks(wanted)) == [Severity.FAIL]


async def test_the_key_database_is_checked_and_not_changed(tmp_path) -> None:
    path = tmp_path / "keys.db"
    wanted = settings(
        auth={"methods": ["api_key"]}, keys={"database": f"sqlite+aiosqlite:///{path}", "pepper_file": tmp_path / "pepper"}
    )
    assert states(await services.keys(wanted)) == [Severity.FAIL, Severity.FAIL]
    assert list(tmp_path.iterdir()) == []
    make_pepper(wanted.keys)
    path.touch(0o600)
    (found,) = await services.keys(wanted)
    assert (found.state, "is at level none" in found.said) == (Severity.WARN, True)
    store = open_store(wanted.keys)
    await store.migrate()
    await store.close()
    (found,) = await services.keys(wanted)
    assert (found.state, "0 keys, level 0001" in found.said) == (Severity.OK, True)
    path.chmod(0o604)
    assert Severity.WARN in states(await services.keys(wanted))
    path.write_bytes(secrets.token_bytes(4096))
    path.chmod(0o600)
    assert states(await services.keys(wanted)) == [Severity.FAIL]


async def test_the_configuration_of_redis_is_checked(redis: RedisServer) -> None:  # noqa: F811
    wanted = settings(quota={"redis": redis.url})
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    (found,) = await services.redis(wanted)
    assert "maxmemory-policy noeviction" in found.said
    assert PASSWORD not in found.said
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = await services.redis(wanted)
    assert Severity.WARN in states(found)
    assert any("noeviction" in one.hint for one in found)
    (found,) = await services.redis(settings(quota={"redis": f"redis://:wrong@127.0.0.1:{redis.port}"}))
    assert (found.state, "does not take the user or the password" in found.said) == (Severity.FAIL, True)


@pytest.mark.parametrize(
    ("information", "took", "off", "expected"),
    [
        ({"maxmemory_policy": "noeviction"}, 0.001, 0.1, [Severity.OK]),
        ({"maxmemory_policy": "noeviction", "role": "slave"}, 0.001, 0.1, [Severity.FAIL]),
        ({"maxmemory_policy": "noeviction"}, 0.04, 0.1, [Severity.WARN]),
        ({"maxmemory_policy": "noeviction"}, 0.001, 60.0, [Severity.WARN]),
    ],
)
def test_a_replica_slow_answers_and_a_wrong_clock_of_redis_are_reported(information, took, off, expected) -> None:
    assert states(services.judge_redis("redis://cache", information, took, off)) == expected


async def test_clamd_must_have_signatures_and_accept_an_upload(clamav: ClamdServer) -> None:  # noqa: F811
    def wanted(**more) -> Settings:
        return settings(antivirus={"address": clamav.unix, "stream_max_bytes": clamav.stream_max_bytes, **more})

    (found,) = await services.clamd(wanted())
    assert (found.state, "ClamAV" in found.said) == (Severity.OK, True)
    (found,) = await services.clamd(wanted(stream_max_bytes=clamav.stream_max_bytes + (1 << 20)))
    assert (found.state, "StreamMaxLength" in found.hint) == (Severity.FAIL, True)
    assert Severity.WARN in states(await services.clamd(wanted(fail_open=True)))


def test_the_audit_log_must_be_writable_and_have_space(tmp_path, monkeypatch) -> None:
    path = tmp_path / "audit.log"
    Usage = namedtuple("Usage", "total used free")
    for free, expected in ((1 << 40, Severity.OK), (1 << 29, Severity.WARN), (1 << 20, Severity.FAIL)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, free=free: Usage(1 << 41, 0, free))
        assert states(files.audit(settings(audit={"file": path}))) == [expected]
    assert not path.exists()
    assert states(files.audit(settings(audit={"file": tmp_path}))) == [Severity.FAIL]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: Usage(1 << 41, 0, 1 << 40))
    path.touch()
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    assert states(files.audit(settings(audit={"file": path}))) == [Severity.WARN]


async def test_the_sandbox_is_tried_in_a_separate_process() -> None:
    (found,) = await machine.sandbox(settings(decode={"sandbox": "best-effort"}))
    assert found.state in {Severity.OK, Severity.WARN}
    assert "no_new_privs" in found.said
    assert states(await machine.sandbox(settings(decode={"sandbox": "off"}))) == [Severity.SKIP]
    assert states(await machine.sandbox(settings(server={"profile": "prod"}, decode={"sandbox": "off"}))) == [Severity.WARN]


async def test_a_missing_layer_of_a_required_sandbox_fails(monkeypatch) -> None:
    script = 'import os; os.write(1, b\'[["rlimits"], {"landlock": "the kernel has none"}]\')'
    monkeypatch.setattr(machine, "_SANDBOXED", script)
    assert states(await machine.sandbox(settings(decode={"sandbox": "required"}))) == [Severity.FAIL]
    (found,) = await machine.sandbox(settings())
    assert (found.state, "no landlock: the kernel has none" in found.said) == (Severity.WARN, True)
    monkeypatch.setattr(machine, "_SANDBOXED", "raise SystemExit(1)")
    assert states(await machine.sandbox(settings())) == [Severity.FAIL]


def test_descriptors_must_suffice_for_the_connections(monkeypatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, 4096))
    (found,) = machine.open_files(settings(connections={"most": 1000}))
    assert (found.state, "ulimit -n" in found.hint) == (Severity.WARN, True)
    assert states(machine.open_files(settings(connections={"most": 100}))) == [Severity.OK]


@pytest.mark.parametrize(
    ("quota", "state"), [("max 100000", Severity.OK), ("50000 100000", Severity.WARN), ("800000 100000", Severity.OK)]
)
def test_workers_are_compared_with_the_cpu_quota_of_the_control_group(tmp_path, quota, state) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    workers = {"workers": min(2, len(os.sched_getaffinity(0))) if "max" in quota or "8" in quota else 2}
    (found,) = machine.cpu(settings(engine=workers), tmp_path)
    assert found.state is state


def test_a_clock_in_the_past_fails(monkeypatch) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000_000.0)
    assert states(machine.clock()) == [Severity.FAIL]
    monkeypatch.setattr(machine.time, "time", lambda: 1_900_000_000.0)
    for unsynchronised, state in ((True, Severity.WARN), (False, Severity.OK)):
        monkeypatch.setattr(machine, "_unsynchronised", lambda it=unsynchronised: it)
        assert states(machine.clock()) == [state]


def test_a_checkpoint_is_checked_without_loading_it(tmp_path) -> None:
    def checkpoint(folder: Path) -> Finding:
        qwen = {"model": str(folder), "device": "cpu"}
        return engine.engine(settings(engine={"name": "qwen"}, qwen=qwen))[0]

    assert checkpoint(tmp_path / "absent").state is Severity.FAIL
    assert checkpoint(tmp_path).state is Severity.FAIL
    (tmp_path / "config.json").write_text("{}")
    assert "no *.safetensors" in checkpoint(tmp_path).said
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(whole)
    assert checkpoint(tmp_path).state is Severity.OK
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    assert "model.safetensors cannot be read" in checkpoint(tmp_path).said


def test_the_pocketsphinx_models_load() -> None:
    assert states(engine.engine(settings())) == [Severity.OK]


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
