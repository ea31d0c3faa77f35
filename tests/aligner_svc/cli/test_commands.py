"""`aligner serve`, `config`, `info` and `--version`."""

from __future__ import annotations

import json
import sys
import tomllib
from importlib.metadata import version
from types import ModuleType

import pytest
from typer.testing import CliRunner

from aligner_svc.cli import app
from aligner_svc.config import Settings
from tests.kit.scripted_aligner import scripted_server


@pytest.fixture
def served(monkeypatch):
    """A server module that records its settings and exits with 3."""
    seen: list[Settings] = []

    async def serve(settings: Settings) -> int:
        seen.append(settings)
        return 3

    module = ModuleType("aligner_svc.processes")
    module.serve = serve
    monkeypatch.setitem(sys.modules, "aligner_svc.processes", module)
    return seen


def aligner(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_version():
    assert aligner("--version").stdout == f"aligner {version('aligner-svc')}\n"


def test_the_command_alone_says_what_to_do_next():
    result = aligner()
    assert result.exit_code == 0
    assert "aligner serve" in result.stdout
    assert "aligner align" in result.stdout


def test_a_shell_completes_commands_and_formats(monkeypatch):
    monkeypatch.setenv("_ALIGNER_COMPLETE", "complete_bash")
    for words, expected in {"aligner al": "align", "aligner align --format c": "ctm\ncsv"}.items():
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert CliRunner().invoke(app, [], prog_name="aligner").stdout.strip() == expected


def test_info():
    with scripted_server() as running:
        answer = json.loads(aligner("info", "--target", running.target).stdout)
        table = aligner("info", "--target", running.target, "--format", "table").stdout
    assert answer["engine"] == "scripted-1"
    assert answer["limits"]["unary_audio_bytes"] == 10 << 20
    assert "10 MiB, streamed 512 MiB" in table
    assert aligner("info", "--target", "127.0.0.1:1").exit_code == 69


def test_flags_override_variables_which_override_the_file(served, monkeypatch, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[server]\nlisten = "127.0.0.1:1"\ndrain_grace = 2\n[engine]\nqueue = 3\n')
    monkeypatch.setenv("ALIGNER_ENGINE__QUEUE", "4")
    monkeypatch.setenv("ALIGNER_ENGINE__WORKERS", "5")
    result = aligner("serve", "--profile", "dev", "--listen", "127.0.0.1:0", "--workers", 6, "--config", file)
    assert result.exit_code == 3, result.output
    settings = served[0]
    assert (settings.server.listen, settings.server.drain_grace) == ("127.0.0.1:0", 2.0)
    assert (settings.engine.queue, settings.engine.workers) == (4, 6)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--engine", "nothing"], {}, "--engine: no such engine: choose from pocketsphinx, qwen"),
        (["--workers", "0"], {}, "--workers: input should be greater than or equal to 1"),
        ([], {"ALIGNER_LIMITS__AUDIO_SECONDS": "long"}, "ALIGNER_LIMITS__AUDIO_SECONDS: input should be a valid number"),
        ([], {"aligner_limits__audio_second": "9"}, "did you mean ALIGNER_LIMITS__AUDIO_SECONDS?"),
        ([], {"ALIGNER_STREAM": '{"concurrent": 0}'}, "ALIGNER_STREAM (stream.concurrent): input should be"),
        ([], {"ALIGNER_STREAM": "{"}, "ALIGNER_STREAM: not valid JSON"),
        (["--profile", "prod"], {}, "why: the prod profile needs at least one authentication method"),
        (["--config", "missing.toml"], {}, "ALIGNER_CONFIG: missing.toml is not a file"),
        (["--config", "broken.toml"], {}, "broken.toml: not valid TOML"),
        (["--config", "wrong.toml"], {}, "wrong.toml: limits.audio_secs: no such setting; did you mean limits.audio_seconds?"),
    ],
)
def test_an_invalid_setting_is_one_readable_line(served, monkeypatch, tmp_path, arguments, environment, message):
    (tmp_path / "broken.toml").write_text("[server")
    (tmp_path / "wrong.toml").write_text("[limits]\naudio_secs = 4")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = aligner("serve", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert served == []


def test_misspelled_variables_are_warned_about_and_those_of_kubernetes_are_not(served, monkeypatch):
    for name in ("ALIGNER_STREM__IDLE_TIMEOUT", "ALIGNER_PORT_50051_TCP_ADDR", "ALIGNER_SERVICE_HOST", "ALIGNER_PORT"):
        monkeypatch.setenv(name, "1")
    for command in ("serve", "config"):
        stderr = aligner(command).stderr
        assert stderr == "warning: ALIGNER_STREM__IDLE_TIMEOUT sets nothing; did you mean ALIGNER_STREAM__IDLE_TIMEOUT?\n"


def test_config_shows_the_source_of_every_value(monkeypatch, tmp_path):
    (tmp_path / "aligner.toml").write_text("[limits]\naudio_seconds = 5\ntranscript_chars = 6\n")
    monkeypatch.setenv("ALIGNER_LIMITS__AUDIO_SECONDS", "600")
    monkeypatch.setenv("ALIGNER_STREAM", '{"concurrent": 3}')
    rows = json.loads(aligner("config", "--format", "json").stdout)
    assert rows["limits.audio_seconds"] == {
        "value": 600.0,
        "source": "environment",
        "origin": "ALIGNER_LIMITS__AUDIO_SECONDS",
    }
    assert rows["limits.transcript_chars"] == {"value": 6, "source": "file", "origin": "aligner.toml"}
    assert rows["stream.concurrent"] == {"value": 3, "source": "environment", "origin": "ALIGNER_STREAM"}
    assert rows["server.listen"] == {"value": "127.0.0.1:50051", "source": "default", "origin": None}
    toml = aligner("config").stdout
    assert "audio_seconds = 600.0  # environment: ALIGNER_LIMITS__AUDIO_SECONDS" in toml
    # A setting that is not set is a comment: TOML has no null.
    assert tomllib.loads(toml) == Settings().model_dump(mode="json", exclude_none=True)


def test_the_output_of_config_is_a_valid_settings_file(monkeypatch, tmp_path):
    """Including lists of names and tables. Not secrets, which it shows as asterisks."""
    monkeypatch.setenv("ALIGNER_SERVER__PROFILE", "prod")
    monkeypatch.setenv("ALIGNER_AUTH__METHODS", "jwt, api_key")
    monkeypatch.setenv("ALIGNER_JWT__ISSUERS", '[{"issuer": "https://idp.example.org", "audience": ["a", "b"]}]')
    (tmp_path / "aligner.toml").write_text(aligner("config").stdout)
    before = Settings()
    monkeypatch.delenv("ALIGNER_AUTH__METHODS")
    monkeypatch.delenv("ALIGNER_JWT__ISSUERS")
    after = Settings()
    assert (after.auth, after.jwt) == (before.auth, before.jwt)
    assert after.auth.methods == ("jwt", "api_key")
    assert after.jwt.issuers[0].audience == ("a", "b")


def test_variables_of_the_client_are_not_settings_of_the_server(monkeypatch):
    monkeypatch.setenv("ALIGNER_CLIENT_TARGET", "localhost:1")
    monkeypatch.setenv("ALIGNER_AUTH__METHOD", "jwt")
    stderr = aligner("config").stderr
    assert "ALIGNER_CLIENT_TARGET" not in stderr
    assert "did you mean ALIGNER_AUTH__METHODS?" in stderr


def test_config_reports_an_invalid_setting_as_one_line(monkeypatch):
    monkeypatch.setenv("ALIGNER_LIMITS__AUDIO_SECONDS", "long")
    result = aligner("config")
    assert result.exit_code == 2
    assert "ALIGNER_LIMITS__AUDIO_SECONDS: input should be" in result.stderr
    assert result.stdout == ""
