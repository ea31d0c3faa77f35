"""TLS, tokens and keys of the client, against a real server that requires them."""

from __future__ import annotations

import subprocess
import sys

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from aligner_client import (
    Aligner,
    ApiKey,
    AsyncAligner,
    BearerToken,
    ClientCredentials,
    CredentialsError,
    Handshake,
    RetryPolicy,
    Tls,
    UnauthenticatedError,
    UnavailableError,
    failed_handshake,
)
from aligner_client.channel import is_loopback
from tests.kit.guarded_aligner import Authority, guarded_server
from tests.kit.scripted_aligner import Fault

ONCE = RetryPolicy(attempts=1)
SECRET = "s3cret-of-this-test"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
def server():
    with guarded_server() as running:
        yield running


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (BearerToken(SECRET), "authorization", f"Bearer {SECRET}"),
        (BearerToken(lambda: SECRET), "authorization", f"Bearer {SECRET}"),
        (ApiKey(SECRET), "x-api-key", SECRET),
    ],
)
async def test_every_call_of_either_client_has_the_credentials(server, auth, header, value):
    with Aligner(server.target, auth=auth, metadata=[("x-mine", "1")]) as aligner:
        aligner.server_info()
        aligner.align(b"x", "one")
        aligner.stream_align(b"x", "one")
    async with AsyncAligner(server.target, auth=auth, metadata=[("x-mine", "1")]) as async_aligner:
        await async_aligner.server_info()
        await async_aligner.align(b"x", "one")
        await async_aligner.stream_align(b"x", "one")
    assert [(shown[header], shown["x-mine"]) for shown in server.guard.seen] == [(value, "1")] * 6


@pytest.mark.parametrize("method", ["align", "stream_align"])
async def test_every_attempt_has_the_current_token(server, method):
    tokens = iter("abcd")
    server.guard.decide = lambda shown: (grpc.StatusCode.UNAVAILABLE, "DRAINING") if len(server.guard.seen) % 2 else None
    auth, eager = BearerToken(lambda: next(tokens)), RetryPolicy(initial=0.001)
    with Aligner(server.target, auth=auth, retry=eager) as aligner:
        getattr(aligner, method)(b"x", "one")
    async with AsyncAligner(server.target, auth=auth, retry=eager) as async_aligner:
        await getattr(async_aligner, method)(b"x", "one")
    assert [shown["authorization"][-1] for shown in server.guard.seen] == list("abcd")


async def test_the_caller_gets_what_its_token_function_raises(server):
    def broken() -> str:
        raise ZeroDivisionError("vault")

    with Aligner(server.target, auth=BearerToken(broken)) as aligner, pytest.raises(ZeroDivisionError):
        aligner.align(b"x", "one")
    async with AsyncAligner(server.target, auth=BearerToken(lambda: f"{SECRET}\n")) as async_aligner:
        with pytest.raises(CredentialsError) as raised:
            await async_aligner.align(b"x", "one")
    assert SECRET not in str(raised.value)
    assert server.guard.seen == []


def test_a_refused_static_token_is_not_sent_twice(server):
    server.guard.decide = lambda shown: (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    with Aligner(server.target, auth=BearerToken(SECRET)) as aligner, pytest.raises(UnauthenticatedError) as raised:
        aligner.align(b"x", "one")
    assert raised.value.reason == "TOKEN_EXPIRED"
    assert SECRET not in f"{raised.value!r}{raised.value}{raised.value.__cause__!r}"
    assert len(server.guard.seen) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: BearerToken(""),
        lambda: BearerToken(f"Bearer {SECRET}"),
        lambda: BearerToken(f"{SECRET}\r\nx-admin: 1"),
        lambda: ApiKey(f"{SECRET}é"),
        lambda: ApiKey(""),
        lambda: ClientCredentials("http://idp.example/token", "me", SECRET),
        lambda: ClientCredentials("http://127.0.0.1.evil.example/token", "me", SECRET),
        lambda: ClientCredentials(f"https://me:{SECRET}@idp.example/token", "me", SECRET),
        lambda: ClientCredentials(f"{SECRET}", "me", SECRET),
        lambda: ClientCredentials("https://idp.example:port/", "me", SECRET),
        lambda: ClientCredentials("https://idp.example/#x", "me", SECRET),
        lambda: ClientCredentials("https://idp.example/", "", SECRET),
        lambda: ClientCredentials("https://idp.example/", "me", ""),
        lambda: ClientCredentials("https://idp.example/", "me", SECRET, scope=["a b"]),
        lambda: Tls(certificate="c.pem"),
        lambda: Tls(key="c.key"),
        lambda: Tls(server_name=""),
    ],
)
def test_invalid_credentials_are_refused_without_showing_them(make):
    with pytest.raises(CredentialsError) as raised:
        make()
    assert SECRET not in str(raised.value)


def test_secrets_are_not_shown():
    shown = [BearerToken(SECRET), ApiKey(SECRET), ClientCredentials("https://idp.example/token", "me", SECRET)]
    assert SECRET not in repr(shown)
    assert SECRET not in "".join(map(str, shown))


@pytest.mark.parametrize(
    "target",
    ["localhost:1", "localhost", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "dns:localhost:1", "dns:///127.0.0.1:1",
     "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "unix:/run/aligner", "unix-abstract:aligner"],
)  # fmt: skip
def test_loopback(target):
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    ["aligner.example:1", "10.0.0.1:1", "0.0.0.0:1", "localhost.evil.example:1", "localhost:1@evil", "127.0.0.1:1,10.0.0.1:1",
     "ipv4:127.0.0.1:1,10.0.0.1:1", "dns://10.0.0.1/localhost:1", "xds:///localhost", "https://localhost:1", "[::2]:1",
     "[::1]evil:1", "", ":1", "DNS:evil:1", "127.0.0.1.evil.example"],
)  # fmt: skip
def test_no_secret_is_sent_in_clear_off_loopback(target):
    assert not is_loopback(target)
    for auth in (BearerToken(SECRET), ApiKey(SECRET), ClientCredentials("https://idp.example/token", "me", SECRET)):
        with pytest.raises(CredentialsError, match="in clear") as raised:
            Aligner(target, auth=auth)
        assert SECRET not in str(raised.value)


async def test_the_asyncio_client_sends_no_secret_in_clear_either():
    with pytest.raises(CredentialsError, match="in clear"):
        AsyncAligner("aligner.example:1", auth=ApiKey(SECRET))


def test_a_secret_for_loopback_does_not_go_through_a_proxy(server, monkeypatch):
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Aligner(server.target, retry=ONCE) as aligner, pytest.raises(UnavailableError):
        aligner.server_info()  # without a secret, the proxy is used as configured
    with Aligner(server.target, auth=ApiKey(SECRET), retry=ONCE) as aligner:
        assert aligner.server_info().engine == "scripted-1"


def test_contradictory_arguments_are_refused(ca):
    with pytest.raises(CredentialsError):
        Aligner("aligner.example:1", tls=Tls(), credentials=grpc.ssl_channel_credentials())
    with pytest.raises(CredentialsError):
        Aligner("127.0.0.1:1", auth=ApiKey("a"), metadata=[("Authorization", "Bearer b")])


async def test_a_client_certificate_is_sent(ca):
    certificate, key = ca.issue("caller")
    credentials = ca.server_credentials("server", hosts=("127.0.0.1",), client_ca=ca.file)
    with guarded_server(credentials) as server:
        tls = Tls(ca=ca.file, certificate=certificate, key=str(key))
        with Aligner(server.target, tls=tls, auth=ApiKey(SECRET)) as aligner:
            assert aligner.align(b"x", "one").words
        async with AsyncAligner(server.target, tls=tls) as async_aligner:
            assert (await async_aligner.stream_align(b"x", "one")).words
        with Aligner(server.target, credentials=tls.channel_credentials(), auth=ApiKey(SECRET)) as aligner:
            assert aligner.align(b"x", "one").words
        assert [shown.get("x-api-key") for shown in server.guard.seen] == [SECRET, None, SECRET]
        with Aligner(server.target, tls=Tls(ca=ca.file), retry=ONCE) as aligner, pytest.raises(UnavailableError) as raised:
            aligner.align(b"x", "one")
    assert raised.value.handshake is Handshake.CERTIFICATE_MISSING
    assert "client certificate" in str(raised.value)


def test_a_server_of_another_name_can_be_named(ca):
    with guarded_server(ca.server_credentials("named", hosts=("aligner.example",))) as server:
        with Aligner(server.target, tls=Tls(ca=ca.file, server_name="aligner.example")) as aligner:
            assert aligner.server_info().engine == "scripted-1"
        with Aligner(server.target, tls=Tls(ca=ca.file), retry=ONCE) as aligner, pytest.raises(UnavailableError) as raised:
            aligner.server_info()
    assert failed_handshake(raised.value) is Handshake.WRONG_NAME


def fault_of(target: str, tls: Tls | None) -> Handshake | None:
    with Aligner(target, tls=tls, retry=ONCE) as aligner, pytest.raises(UnavailableError) as raised:
        aligner.server_info()
    return failed_handshake(raised.value)


def test_what_is_wrong_with_tls_is_told_apart(ca, stranger, server):
    certificate, key = stranger.issue("unknown")
    old, old_key = ca.issue("old-client", expired=True)
    with guarded_server(ca.server_credentials("good", hosts=("localhost", "127.0.0.1"))) as secure:
        local = f"localhost:{secure.target.rpartition(':')[2]}"  # which has an IPv6 address too, where nobody listens
        assert fault_of(local, Tls(ca=stranger.file)) is Handshake.UNTRUSTED
        assert fault_of(secure.target, Tls()) is Handshake.UNTRUSTED
        for target in (secure.target, local):
            assert fault_of(target, None) is Handshake.TLS_REQUIRED
    with guarded_server(ca.server_credentials("mutual", hosts=("127.0.0.1",), client_ca=ca.file)) as mutual:
        assert fault_of(mutual.target, None) is Handshake.TLS_REQUIRED
        assert fault_of(mutual.target, Tls(ca=stranger.file)) is Handshake.UNTRUSTED
        for pair in ((certificate, key), (old, old_key)):
            assert fault_of(mutual.target, Tls(ca.file, *pair)) is Handshake.CERTIFICATE_REFUSED
        own = grpc.ssl_channel_credentials(ca.file.read_bytes())
        with Aligner(mutual.target, credentials=own, retry=ONCE) as aligner, pytest.raises(UnavailableError) as raised:
            aligner.server_info()
        assert failed_handshake(raised.value) is Handshake.HUNG_UP
    with guarded_server(ca.server_credentials("old", hosts=("127.0.0.1",), expired=True)) as expired:
        assert fault_of(expired.target, Tls(ca=ca.file)) is Handshake.EXPIRED
    assert fault_of(server.target, Tls(ca=ca.file)) is Handshake.NOT_TLS
    assert fault_of("127.0.0.1:1", Tls(ca=ca.file)) is None
    for reason in ("DRAINING", ""):
        server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed", reason))
        with Aligner(server.target, retry=ONCE) as aligner, pytest.raises(UnavailableError) as raised:
            aligner.align(b"x", "one")
        assert failed_handshake(raised.value) is None


def test_grpc_writes_no_lines_of_its_own(ca):
    with guarded_server(ca.server_credentials("quiet", hosts=("127.0.0.1",))) as secure:
        code = (
            "import sys, aligner_client as a\n"
            "try: a.Aligner(sys.argv[1], tls=a.Tls(), retry=a.RetryPolicy(attempts=1)).server_info()\n"
            "except a.UnavailableError as error: print(error.handshake.name)"
        )
        done = subprocess.run([sys.executable, "-c", code, secure.target], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("UNTRUSTED\n", "")


def test_files_with_the_wrong_contents_are_named(ca, stranger, tmp_path):
    certificate, key = ca.issue("pair")
    other_certificate, _ = stranger.issue("other")
    junk, locked = tmp_path / "junk", tmp_path / "locked"
    junk.write_text("junk")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    pem, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(private.private_bytes(pem, shape, serialization.BestAvailableEncryption(b"x")))
    for tls, message in [
        (Tls(ca=junk), "junk holds no PEM certificates"),
        (Tls(ca=ca.file, certificate=junk, key=key), "junk holds no PEM certificate"),
        (Tls(ca=ca.file, certificate=certificate, key=junk), "junk holds no PEM private key"),
        (Tls(ca=ca.file, certificate=certificate, key=locked), "locked is encrypted"),
        (Tls(ca=ca.file, certificate=other_certificate, key=key), "is not the key of"),
    ]:
        with pytest.raises(CredentialsError, match=message):
            Aligner("aligner.example:1", tls=tls)
    with pytest.raises(FileNotFoundError) as raised:
        Aligner("aligner.example:1", tls=Tls(ca=tmp_path / "missing"))
    assert raised.value.filename == str(tmp_path / "missing")
