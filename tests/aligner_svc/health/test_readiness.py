"""What a running server reports of itself: in the doctor's words, without secrets, and ready exactly when it serves."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from aligner_svc.config import Settings
from aligner_svc.doctor import services
from aligner_svc.health import phrases
from aligner_svc.health.findings import Finding, Severity
from aligner_svc.health.readiness import Readiness
from aligner_svc.telemetry.metrics import Sources
from interceptors.antivirus.clamav import Clamd
from interceptors.antivirus.scanner import Antivirus, ScannerState

NOW = 1_800_000_000.0
DAY = 86_400.0
REDIS = "redis://gateway:hunter2@127.0.0.1:1/0"
CLAMD = "tcp://127.0.0.1:1"
ISSUER = "https://issuer.example"
HEALTHY = ScannerState(True, "", "ClamAV 1.4", 1, 3600.0, 0, 0, 1, Counter(), 0.0)


def settings(**sections) -> Settings:
    given = {
        "quota": {"redis": REDIS},
        "keys": {"database": "postgresql+asyncpg://gateway:hunter2@db.example/keys"},
        "antivirus": {"address": CLAMD},
    }
    return Settings(**given | sections)


def sources(**parts) -> Sources:
    """Of a server that uses every dependency, all of them available."""
    engine = SimpleNamespace(failed=None)
    keys = SimpleNamespace(age_seconds=40.0, last_error="", trouble="")
    healthy = Sources(
        build={"engine": "scripted-1"},
        not_serving=lambda: None,
        engine=lambda: engine,
        pools=[SimpleNamespace(name="decoder", pids=[1, 2], wanted=2)],
        quota_store=SimpleNamespace(degraded=False),
        key_sources={ISSUER: keys},
        certificate_expires=lambda: NOW + 30 * DAY,
        antivirus=lambda: HEALTHY,
    )
    return replace(healthy, **parts)


def readiness(wanted: Settings | None = None, *, keys_unavailable: bool = False, **parts) -> Readiness:
    return Readiness(wanted or settings(), sources(**parts), keys_unavailable=lambda: keys_unavailable, now=lambda: NOW)


def found(check: str, wanted: Settings | None = None, **parts) -> Finding:
    """The only finding of a check."""
    [one] = [one for one in readiness(wanted, **parts).findings() if one.check == check]
    return one


def issuer(age: float | None, error: str = "", trouble: str = ""):
    return {ISSUER: SimpleNamespace(age_seconds=age, last_error=error, trouble=trouble)}


def test_a_server_without_faults_reports_ok_for_every_check() -> None:
    ready, text = readiness().report()
    report = json.loads(text)
    assert ready is report["ready"] is True
    assert [one["check"] for one in report["findings"]] == [
        *("server", "engine", "workers", "tls", "jwks", "keys", "redis", "clamd")
    ]
    assert {one["state"] for one in report["findings"]} == {"ok"}
    assert not any(one["hint"] for one in report["findings"])


def test_dependencies_not_in_use_are_left_out() -> None:
    bare = Readiness(Settings(), Sources(not_serving=lambda: None))
    assert [(one.check, one.severity) for one in bare.findings()] == [("server", Severity.OK)]


@pytest.mark.parametrize(
    ("check", "parts", "severity", "message"),
    [
        (
            "engine",
            {"engine": lambda: SimpleNamespace(failed="CUDA error 719")},
            "fail",
            "scripted-1: out of service: CUDA error",
        ),
        ("workers", {"pools": [SimpleNamespace(name="decoder", pids=[1], wanted=2)]}, "warn", "decoder: 1 of 2 worker processes"),
        ("workers", {"pools": [SimpleNamespace(name="decoder", pids=[], wanted=2)]}, "fail", "decoder: 0 of 2 worker processes"),
        ("tls", {"certificate_expires": lambda: NOW + 9 * DAY}, "warn", "the first expires in 9 days"),
        ("tls", {"certificate_expires": lambda: NOW - 3 * 3600}, "fail", "the first expired 3 hours ago"),
        ("jwks", {"key_sources": issuer(None, "timeout", "keys_unavailable")}, "fail", f"{ISSUER}: timeout"),
        ("jwks", {"key_sources": issuer(None, "", "keys_unavailable")}, "fail", "its keys have not been fetched yet"),
        ("jwks", {"key_sources": issuer(7200.0, "unreachable")}, "warn", "unreachable; its keys were fetched 2 hours ago"),
        ("jwks", {"key_sources": issuer(1200.0, "unreachable", "keys_stale")}, "fail", "20 minutes ago, too old to be trusted"),
        ("keys", {"keys_unavailable": True}, "fail", "PostgreSQL at db.example, database keys: it does not answer"),
        ("redis", {"quota_store": SimpleNamespace(degraded=True)}, "warn", "redis://127.0.0.1:1/0 cannot be reached"),
        ("clamd", {"antivirus": lambda: replace(HEALTHY, healthy=False, reason="refused")}, "fail", f"{CLAMD}: refused"),
        ("clamd", {"antivirus": lambda: replace(HEALTHY, healthy=False, version="")}, "fail", "it has not answered yet"),
        ("clamd", {"antivirus": lambda: replace(HEALTHY, signatures_age=4 * DAY)}, "warn", "ClamAV 1.4, signatures 4 days old"),
        ("clamd", {"antivirus": lambda: replace(HEALTHY, signatures_age=None)}, "warn", "none of ClamAV's signatures"),
    ],
)
def test_a_fault_of_a_dependency_has_a_hint_and_leaves_the_server_ready(check, parts, severity, message) -> None:
    one = found(check, **parts)
    assert one.severity == severity
    assert message in one.message
    assert one.hint
    ready, text = readiness(**parts).report()
    assert ready
    assert [entry["check"] for entry in json.loads(text)["findings"] if entry["state"] != "ok"] == [check]


def test_uploads_that_pass_unscanned_are_a_warning() -> None:
    wanted = settings(antivirus={"address": CLAMD, "fail_open": True})
    one = found("clamd", wanted, antivirus=lambda: replace(HEALTHY, healthy=False, reason="refused"))
    assert (one.severity, one.hint) == (Severity.WARN, "is it up? Until it answers, uploads pass unscanned")


def test_it_is_ready_exactly_when_it_serves() -> None:
    why = ["it is draining"]
    server = readiness(not_serving=lambda: why[0])
    ready, text = server.report()
    assert not ready
    [first, *_] = json.loads(text)["findings"]
    said = "it is NOT_SERVING: it is draining"
    assert first == {"check": "server", "state": "fail", "said": said, "hint": phrases.NOT_SERVING}
    why[0] = None
    assert server.report()[0]


async def test_the_doctor_and_the_server_report_a_fault_in_the_same_words() -> None:
    scanner = Antivirus(Clamd(CLAMD), stream_max_bytes=1)
    await scanner.refresh()
    wanted = settings()
    [redis], [clamd] = await services.redis(wanted), await services.clamd(wanted)
    own_redis = found("redis", quota_store=SimpleNamespace(degraded=True))
    own_clamd = found("clamd", antivirus=lambda: scanner.state)
    assert (own_redis.message, own_redis.hint) == (redis.message, redis.hint)
    assert (own_clamd.message, own_clamd.hint) == (clamd.message, clamd.hint)


def test_no_secret_is_reported() -> None:
    failed = SimpleNamespace(failed="asked redis://:hunter2@cache with Bearer hunter2hunter2\x1b[2J")
    _, text = readiness(
        keys_unavailable=True,
        engine=lambda: failed,
        quota_store=SimpleNamespace(degraded=True),
        antivirus=lambda: replace(HEALTHY, healthy=False, reason="password=hunter2"),
    ).report()
    assert "hunter2" not in text
    assert "gateway" not in text
    assert "\\u001b" not in text
    assert "out of service" in text


def test_a_broken_check_does_not_hide_the_others(caplog) -> None:
    def broken():
        raise RuntimeError("hunter2")

    server = readiness(engine=broken)
    with caplog.at_level(logging.ERROR):
        ready, text = server.report()
        server.report()
    entries = {one["check"]: one for one in json.loads(text)["findings"]}
    assert ready
    assert (entries["engine"]["state"], entries["engine"]["said"]) == ("warn", "could not be checked (RuntimeError)")
    assert entries["redis"]["state"] == "ok"
    assert caplog.text.count("readiness: engine cannot be read") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 minutes"), (7199, "120 minutes"), (7200, "2 hours"), (9 * DAY, "9 days")],
)
def test_times_are_given_in_the_largest_unit_of_which_there_are_two(seconds, text) -> None:
    assert phrases.span(seconds) == text
