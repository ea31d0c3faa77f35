"""`aligner audit`: filtered events, and a summary of who failed, from where and how often."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aligner_svc.cli.audit.command import audit
from aligner_svc.telemetry.audit import report as audit_report
from aligner_svc.telemetry.audit.log import AuditLog
from aligner_svc.telemetry.audit.report import host_of, moment, with_rotated
from interceptors.calls.security_event import Event, SecurityEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALIGN, INFO = "/aligner.v1.Aligner/Align", "/aligner.v1.Aligner/GetServerInfo"
app = typer.Typer()
app.command()(audit)


def run(*arguments: object, stdin: bytes | None = None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def shown(*arguments: object, stdin: bytes | None = None) -> list[str]:
    """The request ids of the events that came out."""
    result = run(*arguments, "--format", "json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line).get("request_id", "") for line in result.stdout.splitlines()]


def write(path: Path, *events: SecurityEvent, first: datetime = NOW) -> Path:
    """As the server does, one a minute."""
    times = (first.timestamp() + 60 * number for number in range(len(events)))
    log = AuditLog(path, now=lambda: next(times))
    for event in events:
        log.record(event)
    log.close()
    return path


@pytest.fixture
def log(tmp_path) -> Path:
    failed, denied = Event.AUTHENTICATION_FAILED, Event.AUTHORISATION_DENIED
    return write(
        tmp_path / "audit.log",
        SecurityEvent(failed, "expired", "jwt:https://idp#a", request_id="1", peer="ipv4:192.0.2.7:1000", method=ALIGN),
        SecurityEvent(failed, "unknown_key", request_id="2", peer="ipv4:192.0.2.8:1000", method=ALIGN),
        SecurityEvent(failed, "expired", "jwt:https://idp#a", request_id="3", peer="ipv4:192.0.2.7:1001", method=ALIGN),
        SecurityEvent(denied, "scope_missing", "key:1", request_id="4", peer="ipv6:%5B2001:db8::7%5D:99", method=INFO),
        SecurityEvent(Event.POLICY_CHANGED, detail="policy.toml", request_id="5"),
        SecurityEvent(failed, "expired", "jwt:https://idp#b", request_id="6", peer="unix:", method=ALIGN),
    )


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ([], "123456"),
        (["--limit", 2], "56"),
        (["--event", "authorisation_denied"], "4"),
        (["--event", "authorisation_denied", "--event", "policy_changed"], "45"),
        (["--event", "audit_dropped"], ""),
        (["--check", "expired", "--limit", 1], "6"),
        (["--check", "expired", "--principal", "jwt:https://idp#a"], "13"),
        (["--principal", "jwt:*"], "136"),
        (["--principal", "jwt"], ""),
        (["--principal", "jwt:https:..idp#a"], ""),
        (["--principal", "key:1", "--principal", "*#b"], "46"),
        (["--peer", "192.0.2.7"], "13"),
        (["--peer", "192.0.2.0/24"], "123"),
        (["--peer", "2001:db8::/32"], "4"),
        (["--peer", "[2001:db8::7]", "--peer", "192.0.2.8"], "24"),
        (["--peer", "0.0.0.0/0"], "123"),
        (["--method", ALIGN], "1236"),
        (["--method", "*/GetServerInfo"], "4"),
        (["--since", "2026-03-01T12:02:00Z"], "3456"),
        (["--until", "2026-03-01T12:02:00Z"], "12"),
        (["--since", "2026-03-01T13:01:00+01:00", "--until", "2026-03-01 12:03"], "23"),
        (["--since", "1s"], ""),
    ],
)
def test_filters(log, flags, found):
    assert shown(log, *flags) == list(found)


def test_stdin_and_the_file_of_the_settings(log, monkeypatch):
    assert shown("-", stdin=log.read_bytes()) == list("123456")
    monkeypatch.setenv("ALIGNER_AUDIT__FILE", str(log))
    assert shown() == list("123456")
    monkeypatch.delenv("ALIGNER_AUDIT__FILE")
    Path("mine.toml").write_text(f'[audit]\nfile = "{log}"\n')
    assert shown("--config", "mine.toml", "--limit", 1) == ["6"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--event", "policy_chnged"], 2, "did you mean policy_changed?"),
        (["--event", "zzz"], 2, "one of authentication_failed"),
        (["--since", "yesterday"], 2, "--since: not a time"),
        (["--until", "999999w"], 2, "--until: not a time"),
        (["--peer", "example.org"], 2, "--peer: not an address"),
        (["--peer", "192.0.2.7:80"], 2, "--peer: not an address"),
        (["none.log"], 1, "none.log\n  why: No such file"),
        (["none.log", "--all"], 1, "none.log\n  why: No such file"),
        (["-", "--all"], 2, "exclude each other"),
        ([], 2, "audit.file is not set"),
        (["--config", "none.toml"], 2, "none.toml is not a file"),
        (["--limit", 0], 2, "--limit"),
    ],
)
def test_wrong_usage_and_unreadable_logs_are_reported(log, arguments, code, message):
    file = [] if not arguments or arguments[0] in {"-", "none.log", "--config"} else [log]
    result = run(*file, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_rotated_files_are_read_oldest_first(tmp_path):
    def rotated(name: str, pack, number: int) -> None:
        plain = write(tmp_path / "plain", SecurityEvent(Event.KEY_CREATED, request_id=name))
        (tmp_path / name).write_bytes(pack(plain.read_bytes()))
        plain.unlink()
        os.utime(tmp_path / name, (number, number))  # in an order that says nothing

    names = ["a.log-20260101.gz", "a.log-20260102", "a.log.10.gz", "a.log.9.xz", "a.log.2.bz2", "a.log.1", "a.log"]
    packs = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    for number, name in enumerate(names):
        rotated(name, packs.get(Path(name).suffix, bytes), number * 7 % 5)
    for other in ("a.log.bak", "a.log2", "b.log.1", "a.log.1.tmp", "xa.log"):
        (tmp_path / other).write_text("no events")
    assert shown("a.log", "--all") == names
    assert shown("a.log") == ["a.log"]
    assert shown("a.log.10.gz") == ["a.log.10.gz"]
    (tmp_path / "a.log").unlink()  # between a rotation and the next event
    assert [path.name for path in with_rotated(tmp_path / "a.log")] == names[:-1]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_broken_archive_is_reported(log, suffix, damage):
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix](log.read_bytes())
    broken = log.with_suffix(suffix)
    broken.write_bytes(packed[:-20] if damage == "cut" else b"no archive at all")
    result = run(broken)
    assert result.exit_code == 1
    assert f"broken or incomplete {suffix} file" in result.stderr


def test_lines_that_are_not_events_are_counted_and_skipped(log):
    bad = [
        b'{"time": "2026-03-01T12:00:00Z", "event"',
        b"ERROR something else",
        b"\xff\xfe",
        b"[]",
        b"17",
        b"null",
        b"{}",
        b'{"time": "then", "event": "x"}',
        b'{"time": 5, "event": "x"}',
        b'{"time": "2026-03-01T12:00:00Z", "event": 5}',
        b"[" * 30_000,
        b'{"x": ' * 5_000,
        b"9" * 30_000,
        b"y" * 1_000_000,  # more than is read at a time
        b'{"time": "2026-03-01T12:00:00Z", "event": "x", "detail": "' + b"z" * 100_000 + b'"}',
    ]
    log.write_bytes(b"\n".join([*bad, b"", log.read_bytes() + b"\n" + b"cut"]))
    result = run(log, "--format", "json")
    assert result.exit_code == 0
    assert [json.loads(line)["request_id"] for line in result.stdout.splitlines()] == list("123456")
    assert f"warning: {len(bad) + 1} lines are not events and were skipped" in result.stderr


@pytest.mark.parametrize(
    "flags", [["--format", "table"], ["--format", "json"], ["--summary", "--format", "table"], ["--summary"]]
)
def test_nothing_in_a_log_can_control_the_terminal(tmp_path, flags):
    escaped, raw = "\x1b]0;owned\x07\x9b2J\u202e[red]x[/red]\x7f\ud800", "owned too\x9b2J\u202e\u2028\x7f"
    names = ("check", "principal", "request_id", "peer", "method", "user_agent", "detail", "event")
    lines = [
        json.dumps({"time": NOW.isoformat(), **dict.fromkeys(names, escaped)}),
        json.dumps({"time": NOW.isoformat(), **dict.fromkeys(names, raw)}, ensure_ascii=False),
    ]
    (tmp_path / "x.log").write_text("\n".join(lines), encoding="utf-8")
    result = run("x.log", *flags)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "owned too" in result.stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2028", "\x7f"} & set(result.stdout)
    if "table" in flags:
        assert "[red]x[/red]" in result.stdout


def test_the_table_shows_the_last_events(tmp_path):
    events = (SecurityEvent(Event.KEY_CREATED, principal=f"key:{n:03}", peer="ipv4:192.0.2.1:5", method=ALIGN) for n in range(60))
    file = write(tmp_path / "many.log", *events)
    lines = run(file, "--format", "table").stdout.splitlines()
    assert len(lines) == 51
    assert lines[1].split() == ["2026-03-01", "12:10:00", "key_created", "key:010", "192.0.2.1", "Aligner/Align"]
    assert "key:059" in lines[-1]
    assert run(file, "--check", "none", "--format", "table").stdout == "no events\n"


def test_a_summary_says_who_failed_from_where_and_how_often(log):
    answer = json.loads(run(log, "--summary").stdout)
    assert (answer["count"], answer["first"]) == (6, "2026-03-01T12:00:00+00:00")
    assert {row["event"]: row["count"] for row in answer["by"]["event"]["values"]} == {
        "authentication_failed": 4,
        "authorisation_denied": 1,
        "policy_changed": 1,
    }
    assert [(row["check"], row["count"]) for row in answer["by"]["check"]["values"]] == [
        ("expired", 3),
        ("scope_missing", 1),  # of those as frequent the latest first
        ("unknown_key", 1),
    ]
    assert answer["by"]["peer"]["values"][0] == {
        "peer": "192.0.2.7",
        "count": 2,
        "first": "2026-03-01T12:00:00+00:00",
        "last": "2026-03-01T12:02:00+00:00",
    }
    assert answer["together"]["values"][0] == {
        "event": "authentication_failed",
        "check": "expired",
        "principal": "jwt:https://idp#a",
        "peer": "192.0.2.7",
        "count": 2,
        "first": "2026-03-01T12:00:00+00:00",
        "last": "2026-03-01T12:02:00+00:00",
    }
    table = run(log, "--summary", "--format", "table", "--limit", 1, "--check", "expired").stdout
    assert table.startswith("3 events, 2026-03-01 12:00:00 to 2026-03-01 12:05:00 (UTC)\n")
    assert "jwt:https://idp#a" in table
    assert "and 1 more" in table
    nothing = json.loads(run(log, "--summary", "--check", "none").stdout)
    assert (nothing["count"], nothing["by"]["event"]["values"]) == (0, [])


def test_dropped_events_are_shown(tmp_path):
    (tmp_path / "x.log").write_text(f'{{"time": "{NOW.isoformat()}", "event": "audit_dropped", "count": 1234}}\n')
    assert "1234 events" in run("x.log", "--format", "table").stdout
    assert "audit_dropped" in run("x.log", "--summary", "--format", "table").stdout


def test_a_flood_of_addresses_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_report, "MAX_VALUES", 10)
    events = (SecurityEvent(Event.AUTHENTICATION_FAILED, peer=f"ipv4:192.0.2.{n}:5") for n in range(25))
    file = write(tmp_path / "flood.log", *events)
    answer = json.loads(run(file, "--summary", "--limit", 3).stdout)
    assert answer["count"] == 25
    assert (len(answer["by"]["peer"]["values"]), answer["by"]["peer"]["distinct"]) == (3, 10)
    assert answer["by"]["peer"]["uncounted"] == 15
    assert "and 15 events with values beyond the first 10" in run(file, "--summary", "--format", "table").stdout


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:49534", "127.0.0.1"),
        ("ipv6:[::1]:5", "::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", "fe80::1%eth0"),
        ("unix:/run/a%20b", "unix:/run/a%20b"),
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_the_address_of_a_peer(peer, host):
    assert host_of(peer) == host


@pytest.mark.parametrize(
    ("text", "before"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 7 * 86_400), (" 2w ", 14 * 86_400)]
)
def test_a_time_can_be_given_as_a_time_ago(text, before):
    assert moment(text, NOW) == NOW - timedelta(seconds=before)
    assert moment("2026-03-01", NOW) == NOW.replace(hour=0)
