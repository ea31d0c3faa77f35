"""`aligner quotas`, as people and scripts use it: the real command, on a real Redis that servers count in."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from aligner_svc.cli.quotas import app, shown
from aligner_svc.cli.quotas.access import Usage
from aligner_svc.cli.quotas.commands import EFFECTIVE_WITHIN
from interceptors.calls.principal import Principal
from interceptors.quota.classes_text import parse
from interceptors.quota.overrides import EVERY, Overrides, OverrideStore
from interceptors.quota.stores.base import Left, Spent
from interceptors.quota.stores.redis_store import RedisStore
from tests.kit import redis_server as rs
from tests.kit.redis_server import PASSWORD

redis = rs.redis
redis_server = rs.redis_server

WAIT_TIMEOUT = 30.0
# So slow that nothing is refilled while a test runs.
FILE = """
[classes.default]
requests_per_second = 0.001
burst = 100
audio_seconds_per_day = 3600
calls_in_flight = 4
[classes.batch]
requests_per_second = 0.001
burst = 1000
priority = "low"
[classes.unlimited]
[principals]
"key:batch" = "batch"
"""


@pytest.fixture
def settings(monkeypatch, tmp_path, redis):
    """The settings of the servers, with an audit log in audit.jsonl."""
    redis.command("FLUSHALL")
    (tmp_path / "quotas.toml").write_text(FILE)
    monkeypatch.setenv("ALIGNER_QUOTA__REDIS", redis.url)
    monkeypatch.setenv("ALIGNER_QUOTA__FILE", "quotas.toml")
    monkeypatch.setenv("ALIGNER_AUDIT__FILE", "audit.jsonl")
    return redis


def quotas(*arguments: object):
    """Run in this process, which is fast. The output must never contain the password."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    for text in (done.stdout, done.stderr):
        assert PASSWORD not in text
        assert "s3cret" not in text
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def events() -> list[dict]:
    return [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]


def used(redis, subject: str, *, requests: float = 0, audio: float | None = None, calls: int = 0) -> Left | Spent:
    """Use quotas as a server does for a principal of its class."""

    async def take() -> Left | Spent:
        store = RedisStore(redis.url, timeout=WAIT_TIMEOUT)
        quota = parse(FILE, "").of_subject(subject)
        try:
            for number in range(calls):
                await store.take(subject, (), quota.slots(stream=False), f"call {number}")
            return await store.take(subject, quota.charges(requests=requests, audio_seconds=audio), (), "call")
        finally:
            await store.close()

    return asyncio.run(take())


def class_on_a_server(redis, name: str) -> str:
    """The class of a principal on a server that is started now."""

    async def ask() -> str:
        file = parse(FILE, "")
        part = Overrides(OverrideStore(redis.url, timeout=WAIT_TIMEOUT), lambda: file, lambda event: None)
        await part.start()
        try:
            return part.current.of(Principal(name, "api_key")).name
        finally:
            await part.close()

    return asyncio.run(ask())


def test_from_an_exhausted_quota_to_another_class(settings):
    used(settings, "key:new", requests=100)
    assert isinstance(used(settings, "key:new", requests=1), Spent)
    (one,) = json.loads(quotas("show").stdout)
    assert (one["principal"], one["used"]) == ("key:new", pytest.approx(1, abs=0.01))

    assert quotas("reset", "key:new").exit_code == 0
    assert isinstance(used(settings, "key:new", requests=1), Left)

    assert quotas("set", "key:new", "batch").exit_code == 0
    assert class_on_a_server(settings, "key:new") == "batch"
    assert quotas("set", "key:new", "--default").exit_code == 0
    assert class_on_a_server(settings, "key:new") == "default"


def test_help_does_not_wait_for_redis_and_grpc():
    code = (
        "import sys; from aligner_svc.cli.quotas import app;"
        "print(sorted({'redis', 'grpc', 'pydantic', 'rich.table'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Without Redis


@pytest.mark.parametrize(
    "arguments", [["show"], ["show", "key:a"], ["reset", "key:a"], ["set", "key:a", "default"], ["overrides"]]
)
def test_without_redis_the_reason_and_a_hint_are_shown(arguments):
    done = quotas(*arguments)
    assert done.exit_code == 1
    assert "counts in its own memory" in done.stderr
    assert "ALIGNER_QUOTA__REDIS" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    "arguments", [["show"], ["show", "key:a"], ["reset", "key:a"], ["set", "key:a", "default"], ["overrides"]]
)
def test_an_unavailable_redis_is_reported_without_its_password(settings, arguments):
    settings.kill()
    done = quotas(*arguments)
    assert done.exit_code == 69
    assert f"redis://127.0.0.1:{settings.port}/0" in done.stderr
    assert "cannot be reached" in done.stderr
    assert not Path("audit.jsonl").exists() or not events()


@pytest.mark.parametrize(
    ("url", "says", "code"),
    [
        ("redis://:wr0ng@127.0.0.1:{port}/0", "refuses the user or the password", 69),
        ("http://:wr0ng@127.0.0.1/0", "not a Redis URL", 2),
    ],
)
def test_an_unusable_url_is_not_repeated(settings, monkeypatch, url, says, code):
    monkeypatch.setenv("ALIGNER_QUOTA__REDIS", url.format(port=settings.port))
    done = quotas("show")
    assert done.exit_code == code
    assert says in done.stderr
    assert "wr0ng" not in done.stderr


def test_an_invalid_file_of_classes_is_reported(settings):
    Path("quotas.toml").write_text("[classes.default]\nburts = 1\n")
    done = quotas("show")
    assert done.exit_code == 2
    assert "quotas.toml, line 2" in done.stderr


def test_without_an_audit_log_nothing_is_changed(settings, monkeypatch):
    monkeypatch.setenv("ALIGNER_AUDIT__FILE", "/proc/audit.jsonl")
    done = quotas("set", "key:new", "batch")
    assert done.exit_code == 1
    assert "audit log" in done.stderr
    assert class_on_a_server(settings, "key:new") == "default"


# show


def test_one_principal_as_json(settings):
    used(settings, "key:new", requests=25, audio=900, calls=3)
    assert json.loads(quotas("show", "key:new").stdout) == {
        "principal": "key:new",
        "class": "default",
        "set_at_run_time": False,
        "priority": "normal",
        "used": 0.75,
        "quotas": {
            "requests_per_second": {
                "rate": 0.001,
                "burst": 100.0,
                "left": pytest.approx(75, abs=0.1),
                "full_in": pytest.approx(25_000, abs=100),
            },
            "audio_seconds_per_day": {
                "rate": pytest.approx(3600 / 86_400),
                "burst": 3600.0,
                "left": pytest.approx(2700, abs=5),
                "full_in": pytest.approx(21_600, abs=100),
            },
        },
        "in_flight": {"calls_in_flight": {"most": 4, "now": 3}},
    }


def test_one_principal_as_a_table(settings):
    used(settings, "key:new", requests=25, calls=3)
    lines = quotas("show", "key:new", "--format", "table").stdout.splitlines()
    assert lines[0] == "key:new: class default, priority normal"
    table = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:]}
    assert re.fullmatch(r"75(\.\d+)? 100 0.001 a second; full in 6.9\d h", table["requests_per_second"])
    assert table["audio_seconds_per_day"] == "3,600 3,600 3,600 a day"
    assert table["calls_in_flight"] == "1 4 as calls end; 3 in flight"


def test_an_unknown_principal_has_full_quotas(settings):
    one = json.loads(quotas("show", "key:quiet").stdout)
    assert one["used"] == 0
    assert one["quotas"]["requests_per_second"]["left"] == 100


def test_a_class_without_limits(settings):
    quotas("set", "key:free", "unlimited")
    assert "no limits" in quotas("show", "key:free", "--format", "table").stdout
    one = json.loads(quotas("show", "key:free").stdout)
    assert (one["quotas"], one["in_flight"], one["set_at_run_time"]) == ({}, {}, True)


def test_a_debt_is_shown_with_the_time_until_it_is_paid(monkeypatch, capsys):
    quota = parse("[classes.default]\nbytes_per_minute = 600\n", "").classes["default"]
    shown.print_one(Usage("key:a", quota, overridden=False, left={"bytes_per_minute": -1200.0}))
    assert "-1,200" in (out := capsys.readouterr().out)
    assert "600 a minute; in debt for 2 min" in out


def test_principals_that_use_most_come_first(settings):
    used(settings, "key:little", requests=10)
    used(settings, "key:batch", requests=500)
    used(settings, "jwt:https://idp#a", audio=3240)
    used(settings, "peer:127.0.0.1", requests=30)
    names = [one["principal"] for one in json.loads(quotas("show").stdout)]
    assert names == ["jwt:https://idp#a", "key:batch", "peer:127.0.0.1", "key:little"]
    assert [one["principal"] for one in json.loads(quotas("show", "--limit", 2).stdout)] == names[:2]
    table = quotas("show", "--format", "table").stdout.splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["jwt:https://idp#a", "default", "90%", "audio_seconds_per_day", "0", "of", "4"],
        ["key:batch", "batch", "50%", "requests_per_second"],
    ]


def test_an_empty_list_is_not_a_failure(settings):
    assert json.loads(quotas("show").stdout) == []
    done = quotas("show", "--format", "table")
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"redis://127.0.0.1:{settings.port}/0" in done.stderr


def test_names_of_principals_cannot_control_the_terminal(settings):
    used(settings, "jwt:https://idp#\x1b[31m[bold]evil", requests=1)
    table = quotas("show", "--format", "table").stdout
    assert "\x1b[31m" not in table
    assert "[bold]evil" in table


@pytest.mark.parametrize("command", ["show", "reset"])
@pytest.mark.parametrize("name", ["alk_3fb1c9_secret", "*", "key:", "key:*", "unknown"])
def test_what_is_not_a_principal_is_refused_and_no_secret_repeated(settings, command, name):
    done = quotas(command, name)
    assert done.exit_code == 2
    assert "secret" not in done.stderr


# reset


def test_a_reset_fills_the_quotas_frees_the_slots_and_is_recorded(settings):
    used(settings, "key:new", requests=100, audio=1800, calls=4)
    used(settings, "key:other", requests=100)
    done = quotas("reset", "key:new")
    assert done.exit_code == 0
    assert "requests_per_second 100% used" in done.stderr
    one = json.loads(quotas("show", "key:new").stdout)
    assert (one["used"], one["in_flight"]["calls_in_flight"]["now"]) == (0, 0)
    assert json.loads(quotas("show", "key:other").stdout)["used"] == pytest.approx(1, abs=0.01)
    (event,) = events()
    assert (event["event"], event["principal"]) == ("quota_changed", "key:new")
    assert event["detail"].startswith("quota reset: requests_per_second 100% used, audio_seconds_per_day 50% used")


def test_a_reset_of_an_unknown_principal_asks_whether_the_name_is_right(settings):
    done = quotas("reset", "key:typo")
    assert done.exit_code == 0
    assert "is the name right?" in done.stderr
    assert "100%" not in done.stderr


# set


def test_an_override_is_shown_listed_recorded_and_removed(settings):
    done = quotas("set", "key:new", "batch")
    assert done.exit_code == 0
    assert "within 5 s" in done.stderr
    assert class_on_a_server(settings, "key:new") == "batch"
    one = json.loads(quotas("show", "key:new").stdout)
    assert (one["class"], one["set_at_run_time"], one["priority"]) == ("batch", True, "low")
    assert "set at run time" in quotas("show", "key:new", "--format", "table").stdout
    quotas("set", "key:new", "unlimited")
    assert json.loads(quotas("overrides").stdout) == {"key:new": "unlimited"}
    assert "key:new" in quotas("overrides", "--format", "table").stdout
    quotas("set", "key:new", "--default")
    assert class_on_a_server(settings, "key:new") == "default"
    assert quotas("overrides", "--format", "table").stdout == ""
    assert [(event["event"], event["principal"], event["detail"]) for event in events()] == [
        ("quota_changed", "key:new", "class batch, was that of the file"),
        ("quota_changed", "key:new", "class unlimited, was batch, set at run time"),
        ("quota_changed", "key:new", "class of the file, was unlimited, set at run time"),
    ]


def test_a_pattern_can_be_overridden(settings):
    assert quotas("set", "key:*", "batch").exit_code == 0
    assert class_on_a_server(settings, "key:any") == "batch"
    assert json.loads(quotas("show", "key:any").stdout)["set_at_run_time"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["key:new", "bach"], "did you mean batch?"),
        (["key:new", "zzz"], "one of default, batch, unlimited"),
        (["key:new"], "--default"),
        (["key:new", "batch", "--default"], "--default"),
        (["*", "batch"], "every principal is in the class default"),
        (["unknown", "batch"], "begin with mtls:, jwt: or key:"),
        (["mtls:spiffe://example.org*", "batch"], "separator"),
        (["peer:127.0.0.1", "batch"], "begin with mtls:, jwt: or key:"),
    ],
)
def test_a_meaningless_override_is_refused(settings, arguments, says):
    done = quotas("set", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert json.loads(quotas("overrides").stdout) == {}


def test_removing_an_absent_override_is_a_warning(settings):
    done = quotas("set", "key:new", "--default")
    assert done.exit_code == 0
    assert "has no override" in done.stderr
    assert events() == []


def test_one_override_too_many_is_refused(settings, monkeypatch):
    monkeypatch.setattr("interceptors.quota.overrides.MAX_NAMES", 1)
    quotas("set", "key:a", "batch")
    done = quotas("set", "key:b", "batch")
    assert done.exit_code == 1
    assert "1 names have a class" in done.stderr
    assert len(events()) == 1


def test_the_announced_delay_is_that_of_the_servers():
    assert EFFECTIVE_WITHIN == EVERY


def test_a_narrow_terminal_shows_whole_names(settings, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "mtls:spiffe://example.org/ns/speech/sa/a-very-long-service-account"
    used(settings, name, requests=1)
    table = quotas("show", "--format", "table").stdout
    assert Console().width == 60
    assert name in "".join(line.split()[0] for line in table.splitlines()[1:])
