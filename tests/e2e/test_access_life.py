"""What the prod profile needs to start, and what may change or go away while it runs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc
import pytest
from pydantic import SecretStr, ValidationError

from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.config.security import AuthSettings, JwtSettings, TlsSettings
from aligner_svc.server import StartError
from aligner_svc.transport import devcerts
from tests import PROJECT
from tests.kit import certificates
from tests.kit.guarded import Home, bearer, denied, info, with_key
from tests.kit.oidc import OidcProvider, provider  # noqa: F401 - a fixture
from tests.kit.postgres import Postgres, postgres, postgres_server  # noqa: F401 - fixtures
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.servers import environment, launched, service, serving
from tests.kit.waiting import eventually

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
CLIENT = "mtls:spiffe://dev.local/client"


async def test_certificates_change_under_load(tmp_path) -> None:
    """Calls on an open connection and on new ones, while the server's certificate is replaced again and again."""
    home = Home(tmp_path, methods=("mtls",))
    async with home.serving() as running, home.connect(running) as old:
        done = asyncio.Event()
        good = 0

        async def steady() -> None:
            nonlocal good
            while not done.is_set():
                await info(old)
                async with home.connect(running) as fresh:
                    await info(fresh)
                good += 2

        callers = [asyncio.create_task(steady()) for _ in range(4)]
        for number in range(3):
            devcerts.write(tmp_path, "server", certificates.server(home.ca))
            count = number + 1
            await eventually(
                lambda count=count: [event["event"] for event in home.events()].count("certificate_reloaded") == count, "a reload"
            )
        done.set()
        await asyncio.gather(*callers)
        assert good > 10
        (tmp_path / "server.pem").write_text("half a certifi")
        await eventually(lambda: home.events()[-1]["event"] == "certificate_reload_failed", "the bad file to be noticed")
        await info(old)
        async with home.connect(running) as fresh:
            await info(fresh)
        assert {event["event"] for event in home.events()} == {"certificate_reloaded", "certificate_reload_failed"}


async def test_a_new_client_ca_shuts_the_old_ones_out(tmp_path) -> None:
    home = Home(tmp_path, methods=("mtls",))
    async with home.serving() as running, home.connect(running) as old:
        await info(old)
        new_ca = certificates.authority()
        (tmp_path / "ca.pem").write_bytes(new_ca.certificate_pem)
        await eventually(lambda: any(event["event"] == "certificate_reloaded" for event in home.events()), "the reload")
        await info(old)  # a connection that is there stays
        async with home.connect(running, certificates.client(new_ca)) as fresh:
            await info(fresh)
        async with home.connect(running) as late:
            with pytest.raises(grpc.aio.AioRpcError):
                await info(late)


async def test_identities_and_the_policy_file(tmp_path) -> None:
    home = Home(tmp_path, methods=("mtls", "jwt"))
    policy = tmp_path / "policy.toml"
    text = '[methods]\n"/aligner.v1.Aligner/*" = ["align"]\n[principals]\n"mtls:spiffe://dev.local/batch" = ["align"]\n'
    policy.write_text(text)
    auth = AuthSettings(
        methods=("mtls", "jwt"), identities=("spiffe://dev.local/client", "spiffe://dev.local/batch"), policy=policy
    )
    batch, other = certificates.client(home.ca, "batch"), certificates.client(home.ca, "other")
    async with home.serving(auth=auth) as running:
        async with home.connect(running, batch) as channel:
            await info(channel)
        async with home.connect(running, other) as channel:
            assert await denied(info(channel)) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
            # A token does not mend a certificate that is not on the list.
            assert await denied(info(channel, bearer(home.forge.token()))) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
        async with home.connect(running) as channel:
            assert await denied(info(channel)) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
            policy.write_text(text.replace("batch", "client"))
            await eventually(lambda: any(event["event"] == "policy_changed" for event in home.events()), "the new policy")
            await info(channel)
            policy.write_text(text.replace('["align"]', '["algin"]'))
            await eventually(lambda: home.events()[-1]["event"] == "policy_reload_failed", "the bad policy to be noticed")
            await info(channel)


async def test_a_dry_run_lets_pass_and_says_so(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    async with home.serving(auth=AuthSettings(methods=("jwt",), dry_run=True)) as running, home.connect(running) as channel:
        token = home.forge.token(home.forge.claims(scope=None))
        await info(channel, bearer(token), ("x-request-id", "dry"))
        [line] = await home.events_of("dry")
    assert (line["event"], line["check"]) == ("authorisation_would_deny", "scope_missing")


async def test_an_error_of_the_server_leaves_a_record_without_its_text(tmp_path) -> None:
    home = Home(tmp_path, methods=("mtls",))
    async with home.serving() as running, home.connect(running) as channel:
        running.engine.error = RuntimeError("hunter2")
        call = aligner_pb2_grpc.AlignerStub(channel).Align(ALIGN, metadata=[("x-request-id", "broken")])
        assert (await denied(call))[0] == "INTERNAL"
        [line] = await home.events_of("broken")
    assert (line["event"], line["check"], line["principal"]) == ("server_error", "RuntimeError", CLIENT)
    assert "hunter2" not in home.audit.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auth": AuthSettings()}, "needs at least one authentication method"),
        ({"profile": "dev"}, "the dev profile uses neither"),
        ({"jwt": JwtSettings()}, "no issuer is configured: set ALIGNER_JWT__ISSUERS"),
        ({"tls": TlsSettings(), "listen": "0.0.0.0:0"}, "without TLS: set ALIGNER_TLS__CERTIFICATE"),
        ({"tls": TlsSettings(), "auth": AuthSettings(methods=("mtls",))}, "set ALIGNER_TLS__CLIENT_CA"),
        ({"auth": AuthSettings(methods=("jwt",), policy=Path("/nonexistent/policy.toml"))}, "/nonexistent/policy.toml"),
        ({"tls": TlsSettings(certificate=Path("/nonexistent/a.pem"), key=Path("/nonexistent/a.key"))}, "/nonexistent/a"),
    ],
    ids=["no method", "dev with methods", "no issuer", "in clear", "no client CA", "no policy", "no certificate"],
)
async def test_what_does_not_start(tmp_path, changes, message) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    with pytest.raises((StartError, ValidationError), match=message):
        service(**home.parts(**changes))


async def test_keys_need_their_pepper(tmp_path) -> None:
    home = Home(tmp_path, methods=("api_key",), mtls=False)
    with pytest.raises((StartError, ValidationError), match="`aligner keys create` makes it"):
        service(**home.parts())


async def test_a_file_of_keys_has_to_be_one(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    (tmp_path / "jwks.json").write_text("{}")
    with pytest.raises((StartError, ValidationError), match=r"jwks\.json"):
        async with serving(**home.parts()):
            pass


async def test_other_machines_may_call_over_tls(tmp_path) -> None:
    """Not listened on here: loopback is all that tests use. It is let in as far as the port."""
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    built = service(**home.parts(listen="0.0.0.0:0"))
    await built.close()


async def test_the_command_serves_over_mtls(tmp_path) -> None:
    """As a person does it: devcerts, serve, align, audit, each a command."""
    aligner = Path(sys.executable).with_name("aligner")

    async def command(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            aligner,
            *arguments,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    status, out, err = await command("devcerts")
    assert status == 0, err
    variables = {
        "ALIGNER_TLS__CERTIFICATE": "devcerts/server.pem",
        "ALIGNER_TLS__KEY": "devcerts/server.key",
        "ALIGNER_TLS__CLIENT_CA": "devcerts/ca.pem",
        "ALIGNER_AUTH__METHODS": "mtls",
        "ALIGNER_AUDIT__FILE": "audit.jsonl",
    }
    sample = str(PROJECT / "samples" / "librispeech_61-70968-0000.flac")
    files = ("--ca", "devcerts/ca.pem", "--cert", "devcerts/client.pem", "--key", "devcerts/client.key")
    async with launched(tmp_path, "--profile", "prod", "--listen", "127.0.0.1:0", **variables) as server:
        target = await server.ready()  # "localhost" is two addresses, and the other one's refusal may be reported instead
        status, out, err = await command("align", sample, "--target", target, *files, "--format", "json")
        assert status == 0, err
        assert len(json.loads(out)["words"]) == len(WORDS)
        status, _, err = await command("align", sample, "--target", target, "--ca", "devcerts/ca.pem")
        assert status == 69
        assert "give --cert and --key" in err
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text("unknown")
        status, _, err = await command("align", sample, "--target", target, *files, "--token", "@token")
        assert status == 1
        assert "CREDENTIALS_INVALID" in err
    status, out, err = await command("audit", "audit.jsonl", "--summary")
    assert status == 0, err
    assert "method_not_accepted" in out


async def test_the_database_away_refuses_no_good_key(tmp_path, postgres: Postgres) -> None:  # noqa: F811
    """A real PostgreSQL stops and comes back: a known key stays valid, an unknown one is refused with a time to retry."""
    home = Home(tmp_path, methods=("api_key",), mtls=False)
    home.keys = home.keys.model_copy(update={"database": SecretStr(postgres.database())})
    async with home.serving() as running, home.connect(running) as channel:
        known, unknown = await home.new_key("align"), await home.new_key("align")
        await info(channel, with_key(known))
        postgres.stop()
        for _ in range(50):
            await info(channel, with_key(known))
        assert await denied(info(channel, with_key(unknown))) == ("UNAVAILABLE", "AUTHENTICATION_UNAVAILABLE")
        postgres.start()

        async def let_in() -> bool:
            return await info(channel, with_key(unknown)).code() == grpc.StatusCode.OK

        await eventually(let_in, "the database to be found again")
