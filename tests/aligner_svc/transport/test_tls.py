"""Certificates on a real server: which clients and files are accepted, and what happens when the files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from aligner_svc.transport import tls
from aligner_svc.transport.devcerts import Pair
from aligner_svc.transport.tls import ServerCertificates
from interceptors.calls.security_event import Event, SecurityEvent
from tests.kit.certificates import DAY, SERVER, Files, authority, client, connect, dns, leaf, openssl_context, plaintext, server
from tests.kit.chain_server import started
from tests.kit.waiting import eventually

ECHO, HOLD, WHO = "/test.Tls/Echo", "/test.Tls/Hold", "/test.Tls/Who"
WAIT_TIMEOUT = 30.0


class Watched(Files):
    """And the events about them."""

    def count(self, event: Event) -> int:
        return sum(seen.event is event for seen in self.events)

    async def until(self, event: Event, count: int = 1) -> SecurityEvent:
        """The last event, once `count` of the kind are there."""
        await eventually(lambda: self.count(event) >= count, f"{count} of {event}")
        return self.events[-1]


@pytest.fixture
def files(tmp_path):
    return Watched(tmp_path)


@asynccontextmanager
async def serving(certificates: ServerCertificates, release: asyncio.Event | None = None) -> AsyncIterator[int]:
    """The port of a server whose Echo answers what it got, Hold only once released, Who with the peer's common name."""

    async def echo(request, context):
        return request

    async def hold(request, context):
        await release.wait()
        return request

    async def who(request, context):
        return b",".join(context.auth_context().get("x509_common_name", ()))

    handlers = {"Echo": echo, "Hold": hold, "Who": who}
    running = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    running.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "test.Tls", {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}
            ),
        )
    )
    async with started(running, certificates.credentials()) as target:
        await certificates.start()
        try:
            yield int(target.rpartition(":")[2])
        finally:
            await certificates.close()


async def call(channel: grpc.aio.Channel, method: str = ECHO, body: bytes = b"hello") -> bytes:
    return await channel.unary_unary(method)(body, timeout=WAIT_TIMEOUT)


async def outcome(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """Of one call on a channel of its own."""
    async with channel:
        try:
            await call(channel)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def served(port: int, context: ssl.SSLContext) -> bytes:
    """The server's certificate, DER."""
    async with asyncio.timeout(WAIT_TIMEOUT):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


def der(pair: Pair) -> bytes:
    return pair.certificate.public_bytes(serialization.Encoding.DER)


# Clients


async def test_a_client_of_the_ca_is_accepted(files):
    async with serving(files.loaded()) as port, connect(port, files.ca, client(files.ca, "batch")) as channel:
        assert await call(channel, WHO) == b"batch"


async def test_every_other_client_is_refused(files):
    other = authority()
    now = {"days": 1, "begun": 3}
    async with serving(files.loaded()) as port:
        refused = {
            "no certificate": connect(port, files.ca),
            "plaintext": plaintext(port),
            "of another CA": connect(port, files.ca, client(other)),
            "expired": connect(port, files.ca, client(files.ca, **now)),
            "not yet valid": connect(port, files.ca, client(files.ca, begun=-2)),
            "for servers alone": connect(port, files.ca, leaf(files.ca, dns("x"), usages=(SERVER,))),
        }
        assert {name: await outcome(channel) for name, channel in refused.items()} == dict.fromkeys(
            refused, grpc.StatusCode.UNAVAILABLE
        )
        assert await outcome(connect(port, files.ca, client(files.ca))) is grpc.StatusCode.OK


async def test_without_a_client_ca_no_client_certificate_is_used(files):
    async with serving(files.loaded(mutual=False)) as port:
        async with connect(port, files.ca) as channel:
            assert await call(channel, WHO) == b""
        async with connect(port, files.ca, client(files.ca, "batch")) as channel:
            assert await call(channel, WHO) == b"", "an unverified certificate must not name a caller"
        assert await outcome(plaintext(port)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_tls_1_2_and_later_are_accepted(files, tmp_path, version, taken):
    context = openssl_context(tmp_path, files.ca, client(files.ca))
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # or OpenSSL would not offer the old versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    async with serving(files.loaded()) as port:
        if taken:
            assert await served(port, context)
        else:
            with pytest.raises((ConnectionResetError, ssl.SSLError)) as refused:
                await served(port, context)
            assert "no protocols available" not in str(refused.value).lower(), "the client offered no version"


# Files that change


async def test_rotation_under_load_refuses_no_call(files, tmp_path):
    """Calls in flight, calls on open connections and new connections, all while the certificate changes six times."""
    release, stop = asyncio.Event(), asyncio.Event()
    done = {"open": 0, "new": 0}
    own = client(files.ca)

    async def on_open_connection(channel: grpc.aio.Channel) -> None:
        while not stop.is_set():
            assert await call(channel) == b"hello"
            done["open"] += 1

    async def on_new_connections(port: int) -> None:
        while not stop.is_set():
            async with connect(port, files.ca, own) as channel:
                assert await call(channel) == b"hello"
            done["new"] += 1

    async with serving(files.loaded(), release) as port:
        channels = [connect(port, files.ca, own) for _ in range(10)]
        await asyncio.gather(*(call(channel) for channel in channels))
        held = [asyncio.ensure_future(call(channel, HOLD)) for channel in channels for _ in range(5)]
        busy = [asyncio.ensure_future(on_open_connection(channel)) for channel in channels]
        busy += [asyncio.ensure_future(on_new_connections(port)) for _ in range(3)]
        context = openssl_context(tmp_path, files.ca, own)
        for turn in range(1, 7):
            new = server(files.ca)
            files.write(new)
            await files.until(Event.CERTIFICATE_RELOADED, turn)
            assert await served(port, context) == der(new)
            goal = {kind: count + 1 for kind, count in done.items()}
            await eventually(lambda goal=goal: all(done[kind] >= goal[kind] for kind in done) or any(one.done() for one in busy))
        stop.set()
        release.set()
        assert await asyncio.gather(*held) == [b"hello"] * 50
        await asyncio.gather(*busy)
        for channel in channels:
            await channel.close()
    assert files.count(Event.CERTIFICATE_RELOAD_FAILED) == 0


async def test_clients_of_a_replaced_ca_cannot_reconnect(files):
    old, new_ca = client(files.ca), authority()
    async with serving(files.loaded()) as port, connect(port, files.ca, old) as open_before:
        await call(open_before)
        files.client_ca.write_bytes(new_ca.certificate_pem)
        await files.until(Event.CERTIFICATE_RELOADED)
        assert await outcome(connect(port, files.ca, old)) is grpc.StatusCode.UNAVAILABLE
        assert await outcome(connect(port, files.ca, client(new_ca))) is grpc.StatusCode.OK
        assert await call(open_before) == b"hello", "open connections are kept"
        files.client_ca.write_bytes(files.ca.certificate_pem + new_ca.certificate_pem)
        await files.until(Event.CERTIFICATE_RELOADED, 2)
        for one in (old, client(new_ca)):
            assert await outcome(connect(port, files.ca, one)) is grpc.StatusCode.OK


BREAK = {
    "cut off": lambda files: files.certificate.write_bytes(files.certificate.read_bytes()[:300]),
    "second of the chain cut off": lambda files: files.certificate.write_bytes(
        files.certificate.read_bytes() + files.ca.certificate_pem[:300]
    ),
    "empty": lambda files: files.certificate.write_bytes(b""),
    "gone": lambda files: files.certificate.unlink(),
    "key of another": lambda files: files.key.write_bytes(server(files.ca).key_pem),
    "key cut off": lambda files: files.key.write_bytes(files.key.read_bytes()[:80]),
    "key gone": lambda files: files.key.unlink(),
    "expired": lambda files: files.write(server(files.ca, days=1, begun=3)),
    "CA is none": lambda files: files.client_ca.write_bytes(client(files.ca).certificate_pem),
    "CA empty": lambda files: files.client_ca.write_bytes(b""),
}


@pytest.mark.parametrize("breaking", BREAK.values(), ids=BREAK.keys())
async def test_bad_new_files_leave_the_old_ones_in_force(files, tmp_path, breaking):
    own = client(files.ca)
    context = openssl_context(tmp_path, files.ca, own)
    async with serving(files.loaded()) as port:
        first = await served(port, context)
        breaking(files)
        event = await files.until(Event.CERTIFICATE_RELOAD_FAILED)
        assert str(files.folder) in event.detail
        assert "-----BEGIN" not in event.detail.replace("'-----BEGIN CERTIFICATE-----'", "")
        assert await served(port, context) == first
        assert await outcome(connect(port, files.ca, own)) is grpc.StatusCode.OK
        new = server(files.ca)
        files.client_ca.write_bytes(files.ca.certificate_pem)
        files.write(new)
        event = await files.until(Event.CERTIFICATE_RELOADED)
        assert await served(port, context) == der(new)
    assert new.certificate.fingerprint(new.certificate.signature_hash_algorithm).hex(":") in event.detail


async def test_a_certificate_whose_key_comes_much_later_is_loaded_with_it(files, tmp_path):
    context = openssl_context(tmp_path, files.ca, client(files.ca))
    new = server(files.ca)
    async with serving(files.loaded()) as port:
        first = await served(port, context)
        files.certificate.write_bytes(new.certificate_pem)
        assert "does not belong" in (await files.until(Event.CERTIFICATE_RELOAD_FAILED)).detail
        assert await served(port, context) == first
        files.key.write_bytes(new.key_pem)
        await files.until(Event.CERTIFICATE_RELOADED)
        assert await served(port, context) == der(new)


async def test_restoring_the_old_files_after_a_failure_is_a_reload(files):
    content = files.certificate.read_bytes()
    async with serving(files.loaded()):
        files.certificate.write_bytes(b"nonsense")
        await files.until(Event.CERTIFICATE_RELOAD_FAILED)
        files.certificate.write_bytes(content)
        await files.until(Event.CERTIFICATE_RELOADED)


async def test_a_change_while_the_files_are_read_is_noticed(files, tmp_path, monkeypatch):
    read, new = tls.certificates.read, server(files.ca)

    def read_and_replace(*arguments):
        found = read(*arguments)
        files.write(new)
        return found

    monkeypatch.setattr(tls.certificates, "read", read_and_replace)
    certificates = files.loaded()
    monkeypatch.undo()
    async with serving(certificates) as port:
        await files.until(Event.CERTIFICATE_RELOADED)
        assert await served(port, openssl_context(tmp_path, files.ca, client(files.ca))) == der(new)


def test_files_that_are_only_touched_are_no_event(files):
    certificates = files.loaded()
    certificates.reload()
    assert files.events == []


async def test_a_mounted_secret_of_kubernetes_is_reloaded(tmp_path):
    """There tls.crt -> ..data/tls.crt, ..data -> ..2026_01_01, and only the link ..data changes."""
    ca, mount = authority(), tmp_path / "mount"
    mount.mkdir()

    def publish(version: str, pair: Pair) -> None:
        folder = mount / f"..{version}"
        folder.mkdir()
        for name, content in {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem, "ca.crt": ca.certificate_pem}.items():
            (folder / name).write_bytes(content)
        (mount / "..new").symlink_to(folder.name)
        (mount / "..new").replace(mount / "..data")

    publish("2026_01_01", server(ca))
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mount / name).symlink_to(f"..data/{name}")
    events: list[SecurityEvent] = []
    certificates = ServerCertificates(mount / "tls.crt", mount / "tls.key", mount / "ca.crt", events.append, every=0.01)
    context = openssl_context(tmp_path, ca, client(ca))
    new = server(ca)
    async with serving(certificates) as port:
        assert await served(port, context) != der(new)
        publish("2026_02_02", new)
        await eventually(lambda: bool(events))
        assert [event.event for event in events] == [Event.CERTIFICATE_RELOADED]
        assert await served(port, context) == der(new)


def test_each_port_gets_a_configuration_once(files, monkeypatch):
    """Or it would be parsed for every handshake, which takes milliseconds if the bundle of CAs is large."""
    ports: list[Callable[[], object]] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda initial, fetch, require: ports.append(fetch))
    certificates = files.loaded()
    certificates.credentials()
    certificates.credentials()
    assert [fetch() for fetch in ports] == [None, None]
    files.write(server(files.ca))
    certificates.reload()
    first, second = [fetch() for fetch in ports]
    assert first is second is not None
    assert [fetch() for fetch in ports] == [None, None]


async def test_each_port_serves_the_new_certificate(files, tmp_path):
    certificates = files.loaded()
    context = openssl_context(tmp_path, files.ca, client(files.ca))
    new = server(files.ca)
    async with serving(certificates) as one, serving(certificates) as two:
        files.write(new)
        await files.until(Event.CERTIFICATE_RELOADED)
        assert await served(one, context) == await served(two, context) == der(new)


# Kinds of files


@pytest.mark.parametrize(
    "key",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["RSA 2048", "P-384", "P-256"],
)
async def test_accepted_keys_work(files, key):
    files.write(leaf(files.ca, dns("localhost"), usages=(SERVER,), key=key()))
    async with serving(files.loaded()) as port:
        assert await outcome(connect(port, files.ca, client(files.ca))) is grpc.StatusCode.OK


async def test_a_chain_a_bundle_and_text_between_blocks_work(files):
    """A chain with comments, an EC key after its parameters, a CA twice, an expired CA."""
    text = b"subject=CN = localhost\nissuer=CN = issuer\n"
    files.certificate.write_bytes(text + files.certificate.read_bytes() + text + files.ca.certificate_pem)
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    files.key.write_bytes(parameters + files.key.read_bytes())
    old = authority(days=1, begun=3)
    files.client_ca.write_bytes(files.ca.certificate_pem * 2 + old.certificate_pem)
    async with serving(files.loaded()) as port:
        assert await outcome(connect(port, files.ca, client(files.ca))) is grpc.StatusCode.OK


# Expiry


def test_the_log_warns_from_14_days_before_the_expiry_on(files, caplog):
    caplog.set_level(logging.WARNING, "aligner_svc.tls")
    end = server(files.ca, days=20)
    files.write(end)
    now = time.time()
    certificates = files.loaded(mutual=False, now=lambda: now)
    assert not caplog.records
    now += 7 * DAY
    certificates.warn_of_expiry()
    assert "expires in 13.0 days" in caplog.text
    assert str(files.certificate) in caplog.text
    now += 14 * DAY
    certificates.warn_of_expiry()
    assert " expired on " in caplog.text


def test_the_log_warns_at_the_start(files, caplog):
    files.write(server(files.ca, days=3))
    files.loaded(mutual=False)
    assert "expires in 3.0 days" in caplog.text


async def test_the_log_warns_every_day(files, caplog, monkeypatch):
    monkeypatch.setattr(tls, "_WARN_EVERY", 0.001)
    files.write(server(files.ca, days=3))
    async with serving(files.loaded(mutual=False)):
        await eventually(lambda: caplog.text.count("expires in 3.0 days") >= 3)


async def test_close_is_idempotent_and_needs_no_start(files):
    certificates = files.loaded()
    await certificates.close()
    await certificates.start()
    await certificates.close()
    await certificates.close()
