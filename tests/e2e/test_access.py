"""Who may call what: the whole service of the prod profile, and clients nobody here wrote."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from aligner_svc import devcerts
from aligner_svc.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.client import Aligner, AsyncAligner, ClientCredentials, Tls
from aligner_svc.security_settings import AuthSettings, Issuer, JwtSettings, TlsSettings
from aligner_svc.server import Service, StartError
from tests import certificates
from tests.e2e.guarded import Home, bearer, info, port_of, with_key
from tests.e2e.node_client import node_call
from tests.e2e.oidc import OidcProvider, provider  # noqa: F401 - a fixture
from tests.e2e.recordings import PROJECT, SPEECH, TRANSCRIPT, WORDS
from tests.e2e.refusals import refusal
from tests.e2e.servers import connect, environment, launched, service, serving, until
from tests.e2e.test_grpcurl import GRPCURL, run
from tests.npm import needs_node
from tests.postgres import Postgres, postgres, postgres_server  # noqa: F401 - fixtures

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
CLIENT = "mtls:spiffe://dev.local/client"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(home: Home) -> AsyncIterator[Service]:
    """mTLS, tokens and keys."""
    async with home.serving() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def channel(home: Home, guarded: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with home.connect(guarded) as opened:
        yield opened


async def denied(call) -> tuple[str, str]:
    """Code and reason."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    told = refusal(error.value)
    return told.code.name, told.reason


async def test_a_certificate_aligns(home, guarded, channel) -> None:
    answer = await aligner_pb2_grpc.AlignerStub(channel).Align(ALIGN)
    assert [word.text for word in answer.words] == list(WORDS)
    assert guarded.engine.callers[-1].client == CLIENT


async def test_a_stream_is_its_principals(home, guarded, channel) -> None:
    async def requests():
        yield aligner_pb2.StreamAlignRequest(config=ALIGN.config)
        yield aligner_pb2.StreamAlignRequest(audio=SPEECH)

    metadata = [bearer(home.forge.token())]
    answers = [one async for one in aligner_pb2_grpc.AlignerStub(channel).StreamAlign(requests(), metadata=metadata)]
    assert answers[-1].HasField("summary")
    assert guarded.engine.callers[-1].client == f"jwt:{home.forge.issuer}#service-a"


async def test_a_key_aligns_and_its_scope_is_asked_for(home, guarded, channel) -> None:
    good, other = await home.new_key("align"), await home.new_key()
    assert (await info(channel, with_key(good))).engine == "scripted-1"
    assert await denied(info(channel, with_key(other), ("x-request-id", "no-scope"))) == ("PERMISSION_DENIED",) * 2
    [line] = await home.events_of("no-scope")
    assert (line["event"], line["check"], line["principal"]) == ("authorisation_denied", "scope_missing", f"key:{other.id}")


async def test_health_is_for_everybody_and_reflection_for_admins(home, guarded, channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    for scope, code in (("align", 1), ("admin", 0), ("align admin", 0)):
        token = home.forge.token(home.forge.claims(scope=scope))
        status, out, err = await grpcurl(home, guarded, "-H", f"authorization: Bearer {token}", "list")
        assert (status != 0) == bool(code), err
        assert ("aligner.v1.Aligner" in out) != bool(code)


async def test_without_a_certificate_there_is_no_connection(home, guarded) -> None:
    async with home.connect(guarded, anonymous=True) as stranger:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await info(stranger, bearer(home.forge.token()))
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


async def grpcurl(home: Home, server: Service, *arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
    if GRPCURL is None:
        pytest.skip("needs grpcurl")
    at = home.folder
    files = ("-cacert", at / "ca.pem", "-cert", at / "client.pem", "-key", at / "client.key")
    *flags, last = arguments
    return await run(GRPCURL, *files, *flags, f"localhost:{port_of(server)}", last, stdin=stdin)


async def test_grpcurl_as_the_guide_has_it(home, guarded) -> None:
    status, request, err = await run(sys.executable, PROJECT / "samples" / "request.py")
    assert status == 0, err
    protos = ("-import-path", PROJECT / "protos", "-proto", "aligner/v1/aligner.proto", "-d", "@")
    key = await home.new_key("align")
    for header in (None, f"authorization: Bearer {home.forge.token()}", f"x-api-key: {key.reveal()}"):
        flags = ("-H", header) if header else ()
        status, out, err = await grpcurl(home, guarded, *flags, *protos, "aligner.v1.Aligner/Align", stdin=request.encode())
        assert status == 0, err
        assert [word["text"] for word in json.loads(out)["words"]] == list(WORDS)
    status, out, err = await grpcurl(home, guarded, "-H", "x-api-key: nobody's", *protos, "aligner.v1.Aligner/Align")
    assert "the credential is not accepted" in err


@needs_node
async def test_grpc_js_over_mtls(home, guarded) -> None:
    at = home.folder
    files = {"ca": at / "ca.pem", "certificate": at / "client.pem", "key": at / "client.key"}
    target = f"localhost:{port_of(guarded)}"
    request = {"config": {"transcript": TRANSCRIPT, "language": "en"}, "audio": base64.b64encode(SPEECH).decode()}
    answer = await node_call(target, "aligner.v1.Aligner/Align", request, **files)
    assert [word["text"] for word in answer.response["words"]] == list(WORDS)
    metadata = {"authorization": f"Bearer {home.forge.token()}x"}
    refused = await node_call(target, "aligner.v1.Aligner/GetServerInfo", {}, metadata=metadata, **files)
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_large_request_of_a_stranger_stays_with_the_stranger(tmp_path) -> None:
    """40 MB, more than the transport would take: what is refused first is who sends it, and the server's memory stays."""
    home = Home(tmp_path, methods=("jwt",))
    issuer = {"issuer": home.forge.issuer, "audience": "aligner", "jwks_file": str(tmp_path / "jwks.json")}
    variables = {"ALIGNER_AUTH__METHODS": "jwt", "ALIGNER_JWT__ISSUERS": json.dumps([issuer])}
    large = aligner_pb2.AlignRequest(config=ALIGN.config, audio=bytes(40 << 20))
    serve = launched(tmp_path, "--profile", "prod", "--listen", "127.0.0.1:0", **variables)
    async with serve as server, connect(await server.ready()) as channel:
        stub = aligner_pb2_grpc.AlignerStub(channel)
        good = [bearer(home.forge.token())]
        assert (await stub.Align(ALIGN, metadata=good)).words
        before = peak_megabytes(server.process.pid)
        for _ in range(5):
            refused = stub.Align(large, metadata=[bearer("nobody")])
            assert await denied(refused) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
        assert peak_megabytes(server.process.pid) - before < 20
        assert (await stub.Align(ALIGN, metadata=good)).words


def peak_megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


async def test_a_token_of_a_real_provider(home, provider: OidcProvider) -> None:  # noqa: F811
    """Discovered, signed by each algorithm, rotated while calls go on: none of the good ones is refused."""
    issuers = (Issuer(issuer=provider.issuer, audience=("aligner",)),)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(home.serving(jwt=JwtSettings(issuers=issuers)))
        channel = await stack.enter_async_context(home.connect(running))
        for algorithm in ("rs256", "es256", "eddsa"):
            assert (await info(channel, bearer(await provider.token(algorithm)))).engine == "scripted-1"
        await provider.rotate()
        assert (await info(channel, bearer(await provider.token()))).engine == "scripted-1"
        bound = await provider.token(client="service-bound", certificate=der(home.client))
        assert (await info(channel, bearer(bound))).engine == "scripted-1"
        other = certificates.client(home.ca, "other")
        async with home.connect(running, other) as somebody_else:
            call = info(somebody_else, bearer(bound), ("x-request-id", "stolen"))
            assert await denied(call) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
        [line] = await home.events_of("stolen")
        assert line["check"] == "certificate_binding"
        await provider.stop()
        assert (await info(channel, bearer(bound))).engine == "scripted-1"


def der(pair: devcerts.Pair) -> bytes:
    return pair.certificate.public_bytes(Encoding.DER)


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
            await until(
                lambda count=count: [event["event"] for event in home.events()].count("certificate_reloaded") == count, "a reload"
            )
        done.set()
        await asyncio.gather(*callers)
        assert good > 10
        (tmp_path / "server.pem").write_text("half a certifi")
        await until(lambda: home.events()[-1]["event"] == "certificate_reload_failed", "the bad file to be noticed")
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
        await until(lambda: any(event["event"] == "certificate_reloaded" for event in home.events()), "the reload")
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
            await until(lambda: any(event["event"] == "policy_changed" for event in home.events()), "the new policy")
            await info(channel)
            policy.write_text(text.replace('["align"]', '["algin"]'))
            await until(lambda: home.events()[-1]["event"] == "policy_reload_failed", "the bad policy to be noticed")
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
        ({"jwt": JwtSettings()}, "no issuer is believed: set ALIGNER_JWT__ISSUERS"),
        ({"tls": TlsSettings(), "listen": "0.0.0.0:0"}, "in clear: set ALIGNER_TLS__CERTIFICATE"),
        ({"tls": TlsSettings(), "auth": AuthSettings(methods=("mtls",))}, "set ALIGNER_TLS__CLIENT_CA"),
        ({"auth": AuthSettings(methods=("jwt",), policy=Path("/nonexistent/policy.toml"))}, "/nonexistent/policy.toml"),
        ({"tls": TlsSettings(certificate=Path("/nonexistent/a.pem"), key=Path("/nonexistent/a.key"))}, "/nonexistent/a"),
    ],
    ids=["no method", "dev with methods", "no issuer", "in clear", "no client CA", "no policy", "no certificate"],
)
async def test_what_does_not_start(tmp_path, changes, message) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    with pytest.raises(StartError, match=message):
        service(**home.parts(**changes))


async def test_keys_need_their_pepper(tmp_path) -> None:
    home = Home(tmp_path, methods=("api_key",), mtls=False)
    with pytest.raises(StartError, match="`aligner keys create` makes it"):
        service(**home.parts())


async def test_a_file_of_keys_has_to_be_one(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    (tmp_path / "jwks.json").write_text("{}")
    with pytest.raises(StartError, match=r"jwks\.json"):
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
        target = await server.ready()  # "localhost" is two addresses, and the other one's refusal may be told instead
        status, out, err = await command("align", sample, "--target", target, *files, "--format", "json")
        assert status == 0, err
        assert len(json.loads(out)["words"]) == len(WORDS)
        status, _, err = await command("align", sample, "--target", target, "--ca", "devcerts/ca.pem")
        assert status == 69
        assert "if it wants a certificate, --cert and --key" in err
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text("nobody's")
        status, _, err = await command("align", sample, "--target", target, *files, "--token", "@token")
        assert status == 1
        assert "CREDENTIALS_INVALID" in err
    status, out, err = await command("audit", "audit.jsonl", "--summary")
    assert status == 0, err
    assert "method_not_accepted" in out


async def test_the_database_away_refuses_no_good_key(tmp_path, postgres: Postgres) -> None:  # noqa: F811
    """A real PostgreSQL stops and comes back: a key that was good goes on, one never seen is told to come back."""
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

        await until(let_in, "the database to be found again")


async def test_client_credentials_of_a_real_provider(home, provider: OidcProvider, tmp_path) -> None:  # noqa: F811
    """What the Python client fetches by itself is let in, blocking and not; the provider's keys change on the way."""
    issuers = (Issuer(issuer=provider.issuer, audience=("aligner",)),)
    auth = ClientCredentials(
        f"{provider.issuer}/token",
        "service-a",
        "only-for-tests",
        scope=("align",),
        resource="https://aligner.example.org/rs256",
    )
    at = home.folder
    tls = Tls(ca=at / "ca.pem", certificate=at / "client.pem", key=at / "client.key")
    async with home.serving(jwt=JwtSettings(issuers=issuers)) as running:
        target = f"localhost:{port_of(running)}"
        async with AsyncAligner(target, tls=tls, auth=auth) as aligner:
            alignment = await aligner.align(SPEECH, TRANSCRIPT)
            assert [word.text for word in alignment.words] == list(WORDS)
            assert running.engine.callers[-1].client == f"jwt:{provider.issuer}#service-a"
            await provider.rotate()
            # The token at hand is refused as soon as the server knows the new keys; the client fetches another.
            await info_with(home, running, bearer(await provider.token()))
            assert (await aligner.server_info()).engine == "scripted-1"

        def blocking() -> str:
            with Aligner(target, tls=tls, auth=auth) as aligner:
                return aligner.server_info().engine

        assert await asyncio.to_thread(blocking) == "scripted-1"


async def info_with(home: Home, server: Service, *metadata: tuple[str, str]) -> None:
    async with home.connect(server) as channel:
        await info(channel, *metadata)
