"""The guards are the same for both doors: who calls, what is counted, what is recorded."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import pytest_asyncio

from aligner_svc.config.http import HttpSettings
from aligner_svc.config.protection import AbuseSettings
from aligner_svc.http.stream import Stream
from aligner_svc.server import Service
from aligner_svc.transport import devcerts
from tests.kit import certificates
from tests.kit.guarded import Home, bearer, denied, info, with_key
from tests.kit.http1 import form, http1, request
from tests.kit.recordings import SPEECH, TRANSCRIPT

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/audio/alignments"
KIND, GOOD = form(('name="file"; filename="a"', SPEECH), ('name="text"', TRANSCRIPT.encode()), ('name="language"', b"en"))
INFO = "/v1/info"
DOOR = {"http": HttpSettings(listen="127.0.0.1:0")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), mtls=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(home: Home) -> AsyncIterator[Service]:
    """Tokens and keys over TLS. Failures of loopback count too."""
    abuse = AbuseSettings(trusted=(), failures_per_minute=40, block_seconds=600)
    async with home.serving(**DOOR, abuse=abuse) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(home: Home, server: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url(server), verify=trust(home), trust_env=False, timeout=20) as opened:
        yield opened


def trust(home: Home) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=home.ca.certificate_pem.decode())


def url(server: Service) -> str:
    return f"https://localhost:{server.http_address.rpartition(':')[2]}"


def reason(answer: httpx.Response, status: int) -> str:
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    return error["reason"]


async def test_keys_and_tokens_align(home, server, client) -> None:
    key = await home.new_key("align")
    files, data = {"file": SPEECH}, {"text": TRANSCRIPT, "language": "en"}
    for header, principal in ((with_key(key), f"key:{key.id}"), (bearer(home.forge.token()), None)):
        answer = await client.post(PATH, files=files, data=data, headers=[header])
        assert answer.status_code == 200, answer.text
        assert principal is None or server.engine.callers[-1].client == principal


async def test_without_a_good_credential_nothing_is_told_and_all_is_recorded(home, server, client) -> None:
    key, scopeless = await home.new_key("align"), await home.new_key()
    cases = [
        ("GET", INFO, [], 401, "CREDENTIALS_MISSING", "credentials_missing"),
        ("POST", "/nothing", [], 401, "CREDENTIALS_MISSING", "credentials_missing"),
        ("OPTIONS", PATH, [], 401, "CREDENTIALS_MISSING", "credentials_missing"),
        ("GET", INFO, [("x-api-key", "alk_x")], 401, "CREDENTIALS_INVALID", ""),
        ("GET", INFO, [("authorization", "Bearer \xff\xfe")], 401, "CREDENTIALS_INVALID", ""),
        ("GET", INFO, [with_key(key), with_key(key)], 401, "CREDENTIALS_AMBIGUOUS", "credentials_ambiguous"),
        ("GET", INFO, [with_key(key), bearer(home.forge.token())], 401, "CREDENTIALS_AMBIGUOUS", "credentials_ambiguous"),
        ("GET", INFO, [with_key(scopeless)], 403, "PERMISSION_DENIED", ""),
    ]
    for number, (verb, path, headers, status, expected, check) in enumerate(cases):
        name = f"case-{number}"
        sent = [(n.encode(), v.encode("latin-1")) for n, v in headers]
        answer = await client.request(verb, path, headers=[*sent, (b"x-request-id", name.encode())])
        assert reason(answer, status) == expected
        assert answer.headers.get("www-authenticate", "").startswith("Bearer") == (status == 401)
        [event] = await home.events_of(name)
        assert event["peer"].startswith("ipv4:127.0.0.1:")
        assert event["check"] == (check or event["check"])


async def test_a_body_of_a_stranger_is_not_read(home, server) -> None:
    async with http1(server.http_address, tls=trust(home)) as stranger:
        await stranger.send(request("POST", PATH, KIND, ("content-length", str(1 << 40))))
        reply = await stranger.reply()
        assert (reply.status, reply.reason, reply.headers["connection"]) == (401, "CREDENTIALS_MISSING", "close")


async def test_a_connection_that_says_nothing_takes_little_memory(home, server) -> None:
    """Nothing is there for TLS before its first byte; asyncio has a buffer for each from the beginning."""
    host, port = server.http_address.rsplit(":", 1)
    silent: list[asyncio.StreamWriter] = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        silent += [(await asyncio.open_connection(host, int(port)))[1] for _ in range(30)]
        async with http1(server.http_address, tls=trust(home)) as last:  # the others have been accepted when it is answered
            await last.send(request("GET", INFO))
            assert (await last.reply()).status == 401
        assert tracemalloc.get_traced_memory()[0] - before < len(silent) * 16 * 1024
    finally:
        tracemalloc.stop()
        for writer in silent:
            writer.close()


async def test_one_that_makes_room_as_its_handshake_ends_frees_its_descriptor(home, server, monkeypatch, caplog) -> None:
    """Else asyncio refuses whoever gets it next, for seconds."""

    class ThenClosed(Stream):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            for one in server._door._open:
                one.end()

    with monkeypatch.context() as patch:
        patch.setattr("aligner_svc.http.door.Stream", ThenClosed)
        for _ in range(4):
            with suppress(OSError):
                async with http1(server.http_address, tls=trust(home)) as early:
                    assert await early.closed()
    for _ in range(4):
        async with http1(server.http_address, tls=trust(home)) as late:
            await late.send(request("GET", INFO))
            assert (await late.reply()).status == 401
    assert "a connection of the HTTP door failed" not in caplog.text


async def test_a_quota_is_spent_through_either_door(home, server, client) -> None:
    key = await home.new_key("align")
    before = home.quotas.read_text()
    few = f'[classes.few]\nrequests_per_second = 0.01\nburst = 2\n[principals]\n"key:{key.id}" = "few"\n'
    home.quotas.write_text(before + few)
    server.reload()
    channel = home.connect(server)
    try:
        async with channel:
            await info(channel, with_key(key))
            assert (await client.get(INFO, headers=[with_key(key)])).status_code == 200
            answer = await client.get(INFO, headers=[with_key(key)])
            assert reason(answer, 429) == "QUOTA_EXCEEDED"
            assert int(answer.headers["retry-after"]) > 1
            assert (await denied(info(channel, with_key(key))))[1] == "QUOTA_EXCEEDED"
    finally:
        home.quotas.write_text(before)
        server.reload()


async def test_an_address_is_blocked_at_both_doors(home, server, client) -> None:
    """The last test of this server."""
    key = await home.new_key("align")
    for _ in range(60):
        answer = await client.get(INFO, headers=[("x-api-key", "alk_x")])
        if answer.status_code != 401:
            break
    assert reason(await client.get(INFO, headers=[with_key(key)]), 503) == "PEER_BLOCKED"
    assert int(answer.headers["retry-after"]) > 100
    async with home.connect(server) as channel:
        assert (await denied(info(channel, with_key(key)))) == ("UNAVAILABLE", "PEER_BLOCKED")


async def test_certificates_are_asked_for_in_every_handshake(tmp_path) -> None:
    home = Home(tmp_path)
    async with home.serving(**DOOR) as server:

        async def status(pair: devcerts.Pair | None, name: str = "localhost") -> int:
            """Of the answer; 0 if the handshake is refused."""
            tls = trust(home)
            if pair is not None:
                devcerts.write(tmp_path, "caller", pair)
                tls.load_cert_chain(tmp_path / "caller.pem", tmp_path / "caller.key")
            try:
                async with http1(server.http_address, tls=tls, name=name) as caller:
                    await caller.send(request("POST", PATH, KIND, body=GOOD))
                    return (await caller.reply()).status
            except (ssl.SSLError, ConnectionError):
                return 0

        assert await status(home.client) == 200
        assert await status(home.client, "127.0.0.1") == 200, "without a name in the handshake"
        assert server.engine.callers[-1].client == "mtls:spiffe://dev.local/client"
        for stranger in (None, certificates.client(certificates.authority()), certificates.authority()):
            assert await status(stranger) == 0
        other = certificates.authority()
        devcerts.write(tmp_path, "server", certificates.server(home.ca))
        devcerts.write(tmp_path, "ca", other)
        server.reload()
        assert await status(certificates.client(other)) == 200
        assert await status(home.client) == 0
