"""`aligner keys`, as people and scripts use it: the real command, on real files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from aligner_svc.cli.failures import Failure
from aligner_svc.cli.keys import app, arguments
from aligner_svc.config import Settings
from aligner_svc.config.security import KeySettings
from aligner_svc.wiring.api_keys import PepperAbsentError, PepperError, make_pepper, open_store, read_pepper
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.authenticator import KeyAuthenticator
from interceptors.calls.principal import Principal, Rejected
from tests.kit import postgres as pg

postgres_server = pg.postgres_server
postgres = pg.postgres


def keys(*arguments: object, stdin: str = ""):
    """Run in this process, which is fast."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def created(*arguments: object) -> str:
    """Make a key and return it."""
    done = keys("create", "--label", "me", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


def listed() -> list[dict]:
    return json.loads(keys("list").stdout)


def id_of(key: str) -> str:
    return key.split("_")[1]


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def verdict(key: str):
    """What a server with the same settings says of a key."""

    async def ask():
        settings = Settings().keys
        store = open_store(settings)
        authenticator = KeyAuthenticator(
            store, read_pepper(settings), prefix=settings.prefix, timeout=30.0, outage=settings.outage
        )
        await authenticator.start()
        try:
            return await authenticator.authenticate(key, {})
        finally:
            await authenticator.close()

    return asyncio.run(ask())


def test_from_the_first_key_to_its_end(tmp_path):
    """In a shell: docs/keys.md, which a test runs."""
    first = keys("create", "--label", "billing batch", "--scope", "align", "--expires", "30d")
    assert first.exit_code == 0, first.stderr
    key = first.stdout.strip()
    assert api_key.parse(key, "alk")
    assert key not in first.stderr
    assert verdict(key).name == f"key:{id_of(key)}"

    shown = json.loads(keys("list").stdout)
    assert [(one["id"], one["label"], one["state"]) for one in shown] == [(id_of(key), "billing batch", "live")]

    second = keys("rotate", id_of(key), "--overlap", "1h", "--format", "json")
    renewed = json.loads(second.stdout)
    assert isinstance(verdict(key), Principal)
    assert isinstance(verdict(renewed["key"]), Principal)

    assert keys("revoke", "-", stdin=key + "\n").exit_code == 0
    assert verdict(key) == Rejected("key_revoked", principal=f"key:{id_of(key)}")
    assert isinstance(verdict(renewed["key"]), Principal)
    everything = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())
    for secret in (key, renewed["key"]):
        assert secret.split("_")[2][:43] not in everything


def test_help_does_not_wait_for_the_database_libraries():
    code = (
        "import sys; from aligner_svc.cli.keys import app; import aligner_svc.wiring.api_keys;"
        "print(sorted({'sqlalchemy', 'alembic', 'asyncpg', 'pydantic', 'rich.table'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_stdout_is_only_the_key():
    done = keys("create", "--label", "me")
    assert re.fullmatch(r"alk_[0-9a-z]{12}_[0-9A-Za-z]{49}\n", done.stdout)
    assert id_of(done.stdout) in done.stderr
    assert "expires 20" in done.stderr


def test_create_as_json():
    made = json.loads(created("--scope", "align", "--scope", "admin", "--expires", "24h", "--format", "json"))
    assert made["id"] == id_of(made["key"])
    assert made["scopes"] == ["admin", "align"]
    assert when(made["expires"]) - when(made["created"]) == 24 * 3600
    assert verdict(made["key"]).scopes == frozenset({"align", "admin"})


def test_defaults():
    created()
    (key,) = listed()
    assert key["scopes"] == ["align"]
    assert when(key["expires"]) - when(key["created"]) == 90 * 86_400
    assert (key["state"], key["revoked"], key["last_used"], key["replaced_by"]) == ("live", None, None, None)


def test_never():
    key = created("--expires", "never")
    assert listed()[0]["expires"] is None
    assert verdict(key).expires is None


def test_files_are_readable_by_the_owner_only():
    before = os.umask(0)
    try:
        created()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path.cwd().iterdir()}
    assert modes == {"aligner-keys.db": 0o600, "aligner-keys.pepper": 0o600}
    assert re.fullmatch(r"[0-9a-f]{64}\n", Path("aligner-keys.pepper").read_text())


def test_the_pepper_is_announced_once():
    first, second = (keys("create", "--label", "me").stderr for _ in range(2))
    assert "made the pepper" in first
    assert "made the pepper" not in second


def test_only_create_makes_files():
    for command in (["list"], ["show", "0123456789ab"], ["rotate", "0123456789ab"], ["revoke", "0123456789ab"]):
        done = keys(*command)
        assert done.exit_code == 1
        assert "aligner keys create" in done.stderr
        assert done.stdout == ""
    assert list(Path.cwd().iterdir()) == []


def test_a_lost_pepper_is_not_replaced_while_keys_are_in_use():
    key = created()
    Path("aligner-keys.pepper").unlink()
    for command in (["create", "--label", "more"], ["rotate", id_of(key)]):
        done = keys(*command)
        assert done.exit_code == 1
        assert done.stdout == ""
        assert "invalid" in done.stderr
        assert "1 key in" in done.stderr
    assert not Path("aligner-keys.pepper").exists()
    assert len(listed()) == 1
    # With no key left in use it is.
    assert keys("revoke", id_of(key)).exit_code == 0
    assert isinstance(verdict(created()), Principal)


def test_no_keys_are_made_with_another_pepper(monkeypatch):
    created()
    monkeypatch.setenv("ALIGNER_KEYS__PEPPER", "another pepper, of 32 characters or more")
    done = keys("create", "--label", "more")
    assert done.exit_code == 1
    assert "another pepper" in done.stderr
    assert "32 characters or more" not in done.stderr
    assert len(listed()) == 1


def test_the_file_and_the_variable_are_the_same_pepper(monkeypatch):
    key = created()
    monkeypatch.setenv("ALIGNER_KEYS__PEPPER", Path("aligner-keys.pepper").read_text().strip())
    Path("aligner-keys.pepper").unlink()
    assert isinstance(verdict(key), Principal)
    assert isinstance(verdict(created()), Principal)
    assert not Path("aligner-keys.pepper").exists()


def test_a_world_readable_pepper_is_warned_about():
    created()
    Path("aligner-keys.pepper").chmod(0o644)
    assert "chmod 600" in keys("list").stderr
    Path("aligner-keys.pepper").chmod(0o640)
    assert "chmod" not in keys("list").stderr


def test_the_table():
    live, revoked = created(), created()
    keys("revoke", id_of(revoked))
    out = keys("list", "--format", "table").stdout
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "live" in lines[id_of(live)]
    assert "revoked" in lines[id_of(revoked)]
    assert "align" in lines[id_of(live)]
    assert "never" in lines[id_of(live)]


def test_a_label_is_not_markup():
    keys("create", "--label", "[red]me[/red]")
    assert "[red]me[/red]" in keys("list", "--format", "table").stdout


def test_show():
    key = created()
    assert json.loads(keys("show", id_of(key)).stdout) == listed()[0]
    out = keys("show", f"key:{id_of(key)}", "--format", "table").stdout
    assert re.search(r"^label +me$", out, re.MULTILINE)
    assert "revoked" not in out


def test_a_database_without_keys(monkeypatch):
    created()
    with sqlite3.connect("aligner-keys.db") as database:
        database.execute("DELETE FROM api_keys")
    done = keys("list", "--format", "table")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no keys" in done.stderr
    assert listed() == []


def test_rotate():
    old = created("--scope", "admin", "--expires", "10d")
    done = keys("rotate", id_of(old), "--overlap", "2h")
    new = done.stdout.strip()
    before, after = listed()
    assert (before["state"], before["replaced_by"]) == ("rotated", id_of(new))
    assert 2 * 3600 - 60 < when(before["expires"]) - when(before["created"]) < 2 * 3600 + 60
    assert (after["state"], after["label"], after["scopes"]) == ("live", "me", ["admin"])
    assert when(after["expires"]) - when(after["created"]) == 10 * 86_400
    assert isinstance(verdict(old), Principal)
    assert isinstance(verdict(new), Principal)


def test_rotate_without_overlap():
    old = created()
    keys("rotate", id_of(old), "--overlap", "0s")
    assert verdict(old).check == "key_expired"


def test_rotate_with_another_lifetime():
    old = created()
    keys("rotate", id_of(old), "--expires", "never")
    assert listed()[1]["expires"] is None


def test_a_key_without_expiry_is_rotated_to_one_without():
    old = created("--expires", "never")
    keys("rotate", id_of(old))
    assert listed()[1]["expires"] is None


def test_rotated_and_revoked_keys_cannot_be_rotated():
    key = created()
    new = keys("rotate", id_of(key)).stdout
    again = keys("rotate", id_of(key))
    assert (again.exit_code, again.stdout) == (1, "")
    assert id_of(new) in again.stderr
    keys("revoke", id_of(key))
    assert "revoked" in keys("rotate", id_of(key)).stderr
    assert len(listed()) == 2


def test_revoke_by_id_and_again():
    key = created()
    first, second = keys("revoke", id_of(key)), keys("revoke", id_of(key))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "within 5 s" in first.stderr
    assert "before" in second.stderr
    assert verdict(key).check == "key_revoked"


def test_a_whole_key_on_the_command_line_is_refused():
    key = created()
    done = keys("revoke", key)
    assert done.exit_code == 2
    assert f"id: {id_of(key)}" in done.stderr
    assert key not in done.stderr
    assert listed()[0]["state"] == "live"


@pytest.mark.parametrize("stdin", ["", "nonsense", "x" * 100_000])
def test_what_is_not_a_key_on_stdin_is_refused(stdin):
    key = created()
    done = keys("revoke", "-", stdin=stdin or key[:-1])
    assert done.exit_code == 2
    assert "mistyped" in done.stderr
    assert key[20:40] not in done.stderr
    assert listed()[0]["state"] == "live"


@pytest.mark.parametrize("command", ["show", "rotate", "revoke"])
def test_an_unknown_key_is_reported(command):
    created()
    done = keys(command, "000000000000")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no key 000000000000" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--label", ""], "--label"),
        (["--label", "x" * 201], "--label"),
        (["--label", "a\x1b[31mb"], "--label"),
        (["--label", "x", "--scope", "align,admin"], "--scope"),
        (["--label", "x", "--scope", "a b"], "--scope"),
        (["--label", "x", "--scope", ""], "--scope"),
        (["--label", "x", "--expires", "90"], "90d"),
        (["--label", "x", "--expires", "0d"], "--expires"),
        (["--label", "x", "--expires", "99999d"], "ten years"),
        (["--label", "x", "--expires", "\N{ARABIC-INDIC DIGIT FIVE}d"], "--expires"),
    ],
)
def test_wrong_usage_makes_no_files(arguments, expected):
    done = keys("create", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert expected in done.stderr
    assert list(Path.cwd().iterdir()) == []


def test_an_unknown_scope_is_warned_about():
    done = keys("create", "--label", "x", "--scope", "algin")
    assert done.exit_code == 0
    assert "did you mean align?" in done.stderr


@pytest.mark.parametrize(
    ("text", "value"), [("90d", 90 * 86_400), ("24h", 86_400), ("30m", 1800), ("45s", 45), ("2w", 14 * 86_400)]
)
def test_times(text, value):
    assert arguments.lifetime(text) == value


def test_zero_is_an_overlap_but_not_a_lifetime():
    assert arguments.seconds("--overlap", "0s", zero=True) == 0
    with pytest.raises(Failure):
        arguments.lifetime("0s")


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_changes_are_recorded_without_the_keys():
    made = keys("create", "--label", "me")
    rotated = keys("rotate", id_of(made.stdout))
    revoked = keys("revoke", id_of(made.stdout))
    old, new = f"key:{id_of(made.stdout)}", f"key:{id_of(rotated.stdout)}"
    recorded = [(event["event"], event["principal"]) for done in (made, rotated, revoked) for event in events(done.stderr)]
    assert recorded == [("key_created", old), ("key_created", new), ("key_rotated", old), ("key_revoked", old)]
    assert events(made.stdout) == events(rotated.stdout) == []
    assert "me" in events(made.stderr)[0]["detail"]
    for secret in (made.stdout, rotated.stdout):
        assert secret.strip().split("_")[2][:43] not in made.stderr + rotated.stderr + revoked.stderr


def test_the_record_goes_to_the_configured_file(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNER_AUDIT__FILE", str(tmp_path / "audit.jsonl"))
    done = keys("create", "--label", "me")
    assert events(done.stderr) == []
    assert [event["event"] for event in events((tmp_path / "audit.jsonl").read_text())] == ["key_created"]


def test_without_an_audit_log_nothing_is_changed(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNER_AUDIT__FILE", str(tmp_path / "none" / "audit.jsonl"))
    done = keys("create", "--label", "me")
    assert (done.exit_code, done.stdout) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_settings_from_a_file(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other.toml").write_text(
        '[keys]\ndatabase = "sqlite:///other/keys.db"\npepper_file = "other/pepper"\nprefix = "acme"\n'
    )
    done = keys("create", "--label", "me", "--config", tmp_path / "other.toml")
    assert done.stdout.startswith("acme_")
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["keys.db", "pepper"]


@pytest.mark.parametrize("url", ["mysql://u:hunter2@db/keys", "postgresql://u:hunter2@db:hunter2/keys"])
def test_an_invalid_database_url_is_reported_without_the_password(monkeypatch, url):
    monkeypatch.setenv("ALIGNER_KEYS__DATABASE", url)
    done = keys("list")
    assert done.exit_code == 2
    assert "keys.database" in done.stderr
    assert "hunter2" not in done.stderr


def test_an_unavailable_database_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNER_KEYS__DATABASE", f"postgresql://u:hunter2@/keys?host={tmp_path}")
    done = keys("create", "--label", "me")
    assert (done.exit_code, done.stdout) == (69, "")
    assert "hunter2" not in done.stderr
    assert "try:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_reported(tmp_path):
    (tmp_path / "aligner-keys.db").write_text("this is not a database, but a text of some length")
    done = keys("list")
    assert done.exit_code == 69
    assert "not a database" in done.stderr


def test_on_postgresql(postgres, monkeypatch):
    monkeypatch.setenv("ALIGNER_KEYS__DATABASE", postgres.database())
    key = created()
    assert isinstance(verdict(key), Principal)
    assert listed()[0]["last_used"] is not None
    new = keys("rotate", id_of(key)).stdout.strip()
    assert keys("revoke", id_of(key)).exit_code == 0
    assert verdict(key).check == "key_revoked"
    assert isinstance(verdict(new), Principal)
    assert [path.name for path in Path.cwd().iterdir()] == ["aligner-keys.pepper"]


# The pepper


def test_two_commands_make_the_same_pepper():
    settings = KeySettings()
    assert make_pepper(settings) == make_pepper(settings) == read_pepper(settings)
    assert [path.name for path in Path.cwd().iterdir()] == ["aligner-keys.pepper"]


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 31, b"x" * 5000])
def test_a_pepper_file_of_the_wrong_size(content):
    Path("aligner-keys.pepper").write_bytes(content)
    with pytest.raises(PepperError, match="32 to 4096"):
        read_pepper(KeySettings())
    done = keys("create", "--label", "me")
    assert (done.exit_code, done.stdout) == (1, "")


def test_a_missing_pepper_is_reported():
    with pytest.raises(PepperAbsentError, match="aligner keys create"):
        read_pepper(KeySettings())


def test_a_pepper_that_cannot_be_read_is_reported():
    Path("aligner-keys.pepper").mkdir()
    with pytest.raises(PepperError, match="cannot be read"):
        read_pepper(KeySettings())


def test_a_pepper_that_cannot_be_made_is_reported():
    with pytest.raises(PepperError, match="cannot be made"):
        make_pepper(KeySettings(pepper_file=Path("none/pepper")))


def test_the_pepper_in_the_settings_is_used_as_utf_8():
    assert read_pepper(KeySettings(pepper=SecretStr("ä" * 32))) == ("ä" * 32).encode()
