"""Who may call what: the whole service of the prod profile, and third-party clients."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client import Aligner, AsyncAligner, ClientCredentials, Tls
from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.config.security import Issuer, JwtSettings
from aligner_svc.server import Service
from aligner_svc.transport import devcerts
from tests import PROJECT
from tests.e2e.test_grpcurl import GRPCURL, run
from tests.kit import certificates
from tests.kit.guarded import Home, bearer, denied, info, port_of, with_key
from tests.kit.node_client import node_call
from tests.kit.npm import needs_node
from tests.kit.oidc import OidcProvider, provider  # noqa: F401 - a fixture
from tests.kit.peak_memory import peak_memory
from tests.kit.postgres import Postgres, postgres, postgres_server  # noqa: F401 - fixtures
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.servers import connect, launched

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
    status, out, err = await grpcurl(home, guarded, "-H", "x-api-key: unknown", *protos, "aligner.v1.Aligner/Align")
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
        before = peak_memory(server.process.pid)
        for _ in range(5):
            refused = stub.Align(large, metadata=[bearer("unknown")])
            assert await denied(refused) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
        assert peak_memory(server.process.pid) - before < 20 << 20
        assert (await stub.Align(ALIGN, metadata=good)).words


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
