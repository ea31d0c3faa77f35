"""Credentials of the commands: where secrets come from, what is refused, and the message when authentication fails."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from aligner_client import Handshake
from aligner_svc.cli import app
from aligner_svc.cli.failures import HANDSHAKE_HINTS
from aligner_svc.cli.server_options import VARIABLES
from tests.kit.guarded_aligner import Answer, Authority, guarded_server, token_endpoint

SECRET = "s3cret-of-this-test"


@pytest.fixture
def server():
    with guarded_server() as running:
        yield running


@pytest.fixture
def provider():
    with token_endpoint() as running:
        yield running


@pytest.fixture
def secret(tmp_path):
    """A file that only its owner can read."""
    file = tmp_path / "secret"
    file.write_text(f"  {SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def speech(tmp_path):
    audio = tmp_path / "speech.wav"
    audio.write_bytes(b"RIFFaudio")
    audio.with_suffix(".txt").write_text("one two")
    return audio


def aligner(*arguments: object, stdin: str | None = None):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert SECRET not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("option", ["--token", "--api-key"])
@pytest.mark.parametrize("where", ["file", "env", "stdin", "variable", "variable of a file"])
def test_a_secret_comes_from_a_file_a_variable_or_stdin(server, secret, monkeypatch, option, where):
    variable = {"--token": "ALIGNER_CLIENT_TOKEN", "--api-key": "ALIGNER_CLIENT_API_KEY"}[option]
    arguments = {"file": [option, f"@{secret}"], "env": [option, "env:MINE"], "stdin": [option, "-"]}.get(where, [])
    if where == "env":
        monkeypatch.setenv("MINE", f"{SECRET} ")
    if where == "variable":
        monkeypatch.setenv(variable, f"{SECRET}\n")
    if where == "variable of a file":
        monkeypatch.setenv(f"{variable}_FILE", str(secret))
    result = aligner("info", "--target", server.target, *arguments, stdin=f"{SECRET}\n" if where == "stdin" else None)
    assert (result.exit_code, result.stderr) == (0, "")
    header, value = {"--token": ("authorization", f"Bearer {SECRET}"), "--api-key": ("x-api-key", SECRET)}[option]
    assert [shown[header] for shown in server.guard.seen] == [value]


def test_a_pipe_of_the_shell_is_read_once(server):
    read, write = os.pipe()
    os.write(write, SECRET.encode())
    os.close(write)
    result = aligner("info", "--target", server.target, "--token", f"@/dev/fd/{read}")
    os.close(read)
    assert (result.exit_code, result.stderr) == (0, "")
    assert server.guard.seen[0]["authorization"] == f"Bearer {SECRET}"


def test_align_sends_the_token_for_a_file_a_directory_and_stdin(server, secret, speech):
    for arguments in ([speech], [speech, "--stream"], [speech.parent, "--out", "out"], ["-", "--text", "one"]):
        assert aligner("align", "--target", server.target, "--token", f"@{secret}", *arguments, stdin="x").exit_code == 0
    assert {shown["authorization"] for shown in server.guard.seen} == {f"Bearer {SECRET}"}
    assert len(server.guard.seen) >= 4


def test_a_token_replaced_in_its_file_is_used_by_the_next_call(server, secret, speech):
    def renew(shown):
        secret.write_text(f"{SECRET}-{len(server.guard.seen)}")

    server.guard.decide = renew
    assert aligner("align", speech, "--target", server.target, "--token", f"@{secret}").exit_code == 0
    assert [shown["authorization"] for shown in server.guard.seen] == [f"Bearer {SECRET}", f"Bearer {SECRET}-1"]


def test_a_token_file_emptied_between_calls_is_reported(server, secret, speech):
    def empty(shown):
        secret.write_text("")

    server.guard.decide = empty
    result = aligner("align", speech, "--target", server.target, "--token", f"@{secret}")
    assert result.exit_code == 1
    assert f"error: {secret}" in result.stderr
    assert "does not hold exactly one secret" in result.stderr


@pytest.mark.parametrize("option", ["--token", "--api-key", "--oauth-secret"])
def test_a_secret_on_the_command_line_is_refused_and_not_shown(server, option):
    oauth = ["--oauth-url", "https://idp.example/", "--oauth-client", "me"] if option == "--oauth-secret" else []
    result = aligner("info", "--target", server.target, *oauth, option, SECRET)
    assert result.exit_code == 2
    stderr = " ".join(result.stderr.replace("│", "").split())
    assert "do not give the secret itself" in stderr
    assert "@FILE, env:NAME or - (stdin)" in stderr
    assert server.guard.seen == []


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--token", "@missing"], {}, "No such file"),
        (["--token", "@{empty}"], {}, "does not hold exactly one secret"),
        (["--token", "@{many}"], {}, "does not hold exactly one secret"),
        (["--token", "@{large}"], {}, "too long"),
        (["--token", "@{binary}"], {}, "that are not allowed"),
        (["--token", "env:NOWHERE"], {}, "NOWHERE is not set"),
        (["--token", "env:BLANK"], {"BLANK": " "}, "it is empty"),
        (["--token", "-"], {}, "it is empty"),
        (["--token", "@{ok}", "--api-key", "@{ok}"], {}, "--token, --api-key"),
        (["--token", "@{ok}", "--oauth-scope", "x"], {}, "--token, --oauth-url"),
        ([], {"ALIGNER_CLIENT_TOKEN": SECRET, "ALIGNER_CLIENT_API_KEY": SECRET}, "CLIENT_TOKEN, ALIGNER_CLIENT_API_KEY"),
        ([], {"ALIGNER_CLIENT_TOKEN": SECRET, "ALIGNER_CLIENT_TOKEN_FILE": "x"}, "ALIGNER_CLIENT_TOKEN_FILE"),
        ([], {"ALIGNER_CLIENT_TOKEN": f"Bearer {SECRET}"}, "without 'Bearer'"),
        (["--oauth-url", "https://idp.example/"], {}, "--oauth-client"),
        (["--oauth-client", "me", "--oauth-secret", "@{ok}"], {}, "--oauth-url"),
        (["--oauth-url", "https://idp.example/", "--oauth-client", "me"], {}, "--oauth-secret"),
        (["--oauth-url", "http://idp.example/", "--oauth-client", "me", "--oauth-secret", "@{ok}"], {}, "must be https"),
        (["--cert", "{ok}"], {}, "--cert, --key"),
        (["--ca", "{ok}"], {}, "holds no PEM certificates"),
        (["--ca", "missing"], {}, "does not exist"),
        (["--token", "@{ok}", "--target", "aligner.example:1"], {}, "in clear"),
    ],
)
def test_unusable_credentials_are_exit_code_2_with_the_reason(server, tmp_path, monkeypatch, arguments, environment, message):
    files = {"empty": b" \n", "many": b"one two", "large": b"x" * 70_000, "binary": b"\xff\x00", "ok": SECRET.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    filled = [argument.format(**{name: name for name in files}) for argument in arguments]
    result = aligner("info", "--target", server.target, *filled, stdin="")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert server.guard.seen == []


def test_stdin_cannot_be_both_audio_and_secret(server):
    result = aligner("align", "-", "--text", "one", "--target", server.target, "--token", "-", stdin=SECRET)
    assert result.exit_code == 2
    assert "stdin is already used for the audio" in result.stderr


def test_the_command_line_overrides_the_variables(server, secret, monkeypatch):
    monkeypatch.setenv("ALIGNER_CLIENT_TARGET", server.target)
    monkeypatch.setenv("ALIGNER_CLIENT_TOKEN", "of-the-variable")
    monkeypatch.setenv("ALIGNER_CLIENT_OAUTH_SCOPE", "no kind by itself")
    assert aligner("info").exit_code == 0
    assert aligner("info", "--api-key", f"@{secret}").exit_code == 0
    first, second = server.guard.seen
    assert first["authorization"] == "Bearer of-the-variable"
    assert (second["x-api-key"], second.get("authorization")) == (SECRET, None)


def test_files_open_to_others_and_misspelt_variables_are_warned_about(server, secret, tmp_path, monkeypatch):
    secret.chmod(0o640)
    monkeypatch.setenv("ALIGNER_CLIENT_TOKN", SECRET)
    monkeypatch.setenv("ALIGNER_CLIENT_PORT_50051_TCP_ADDR", "x")
    result = aligner("info", "--target", server.target, "--token", f"@{secret}")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: ALIGNER_CLIENT_TOKN sets nothing; did you mean ALIGNER_CLIENT_TOKEN?",
        f"warning: {secret} can be read or written by others (mode 0640): chmod 600 {secret}",
    ]


def test_oauth(server, provider, secret, speech, monkeypatch):
    arguments = ["--target", server.target, "--oauth-url", provider.url, "--oauth-client", "me", "--oauth-scope", "a b"]
    more = ["--oauth-audience", "aud", "--oauth-resource", "urn:r", "--oauth-post", "--oauth-secret", f"@{secret}"]
    assert aligner("align", speech, *arguments, *more).exit_code == 0
    assert provider.asked[0].form == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["aud"],
        "resource": ["urn:r"],
        "client_id": ["me"],
        "client_secret": [SECRET],
    }
    monkeypatch.setenv("ALIGNER_CLIENT_OAUTH_SECRET", SECRET)
    monkeypatch.setenv("ALIGNER_CLIENT_TOKEN", "not this one")
    assert aligner("info", *arguments).exit_code == 0
    assert {shown["authorization"] for shown in server.guard.seen} == {"Bearer token-1", "Bearer token-2"}


def test_a_provider_that_issues_no_token_is_reported(server, provider, monkeypatch):
    monkeypatch.setenv("ALIGNER_CLIENT_OAUTH_SECRET", SECRET)
    arguments = ["info", "--target", server.target, "--oauth-client", "me", "--oauth-url"]
    provider.answers.append(Answer({"error": "invalid_client", "error_description": SECRET}, 401))
    result = aligner(*arguments, provider.url)
    assert result.exit_code == 1
    assert "invalid_client" in result.stderr
    assert "check --oauth-client and its secret" in result.stderr
    result = aligner(*arguments, "http://127.0.0.1:1/token")
    assert result.exit_code == 69
    assert "the token endpoint cannot be reached" in result.stderr
    assert "--oauth-url" in result.stderr


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING", "--token, --api-key or --oauth-url"),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", "get a new token"),
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "not revoked"),
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_AMBIGUOUS", "not both"),
        (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", "permission to make this call"),
    ],
)
def test_a_refused_caller_gets_a_hint(server, speech, code, reason, hint):
    server.guard.decide = lambda shown: (code, reason)
    result = aligner("align", speech, "--target", server.target)
    assert result.exit_code == 1
    assert f"refused ({reason})" in result.stderr
    assert hint in result.stderr


def test_tls_and_a_certificate(tmp_path, speech, monkeypatch):
    ca = Authority(tmp_path, "ca")
    certificate, key = ca.issue("caller")
    with guarded_server(ca.server_credentials("server", hosts=("aligner.example",), client_ca=ca.file)) as server:
        named = ["--target", server.target, "--server-name", "aligner.example"]
        pair = ["--cert", certificate, "--key", key]
        assert aligner("align", speech, *named, "--ca", ca.file, *pair).exit_code == 0
        monkeypatch.setenv("ALIGNER_CLIENT_CA", str(ca.file))
        assert aligner("info", *named, *pair).exit_code == 0
        for arguments, message, hint in [
            ([*named], "requires a client certificate", "--cert and --key"),
            (["--target", server.target, *pair], "for another name", "--server-name"),
        ]:
            result = aligner("info", *arguments)
            assert result.exit_code == 69
            assert message in result.stderr
            assert hint in result.stderr
        monkeypatch.delenv("ALIGNER_CLIENT_CA")
        assert "--ca FILE" in aligner("info", *named, "--tls", *pair).stderr


def test_every_failed_handshake_has_a_hint_and_every_option_a_variable():
    assert set(HANDSHAKE_HINTS) == set(Handshake.__members__)
    plain = ("TARGET", "TLS", "CA", "CERT", "KEY", "SERVER_NAME")
    secrets = ("TOKEN", "TOKEN_FILE", "API_KEY", "API_KEY_FILE", "OAUTH_SECRET", "OAUTH_SECRET_FILE")
    oauth = [f"OAUTH_{name}" for name in ("URL", "CLIENT", "SCOPE", "AUDIENCE", "RESOURCE", "CA", "POST")]
    assert {f"ALIGNER_CLIENT_{name}" for name in (*plain, *secrets, *oauth)} == VARIABLES


@pytest.mark.parametrize("command", ["align", "info"])
def test_help_shows_the_options_and_imports_nothing_heavy(command):
    code = (
        f"import sys\nfrom aligner_svc.cli import app\ntry: app(['{command}', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    environment = {**os.environ, "COLUMNS": "160"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment).stdout
    for option in ("--target", "--tls", "--ca", "--cert", "--key", "--token", "--api-key", "--oauth-url", "ALIGNER_CLIENT_TOKEN"):
        assert option in shown
    assert {"grpc", "httpx", "cryptography", "numpy"}.isdisjoint(shown.splitlines()[-1].split())
