"""Tokens, API keys and certificates that must not authenticate anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from interceptors.auth.api_keys import format as api_key
from tests.attack.arena import INFO, STREAM, Arena, Attack, held, stream, unary, upload
from tests.kit import certificates
from tests.kit.certificates import SERVER, dns, leaf, uri
from tests.kit.guarded import bearer, with_key
from tests.kit.token_forge import ATTACKS
from tests.kit.token_forge import Attack as Forgery
from tests.kit.weak_keys import roca_private_key

REFUSED = ("CREDENTIALS_INVALID", "TOKEN_EXPIRED", "HEADERS_TOO_LARGE")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MUTATED = 150
"""Places of a token, spread over it, at which one character is changed."""


def tokens() -> Iterator[Attack]:
    """Every forgery, on a unary call and on a stream."""
    for forgery in ATTACKS:
        if forgery.sendable:
            yield Attack(forgery.name, lambda arena, forgery=forgery: _forged(arena, forgery, streaming=False))
            yield Attack(f"{forgery.name}_stream", lambda arena, forgery=forgery: _forged(arena, forgery, streaming=True))


async def _forged(arena: Arena, forgery: Forgery, *, streaming: bool) -> str:
    server, channel = (arena.mtls, arena.mtls_channel) if forgery.certificate else (arena.plain, arena.channel)
    header = bearer(forgery.token(server.home.forge))
    if streaming:
        return held(await stream(channel, STREAM, upload([b"x"]), header), *REFUSED)
    return held(await unary(channel, INFO, b"", header), *REFUSED)


def mutations() -> Iterator[Attack]:
    """A good token with one character changed, left out or doubled."""
    for number in range(_MUTATED):
        yield Attack(f"character_{number}", lambda arena, number=number: _mutated(arena, number))


async def _mutated(arena: Arena, number: int) -> str:
    forge = arena.plain.home.forge
    token = forge.token(key=forge.keys[number % 3])
    place = number * (len(token) - 1) // (_MUTATED - 1)
    other = _BASE64[(_BASE64.find(token[place]) + 1 + number) % 64]
    changed = {0: other if other != token[place] else "_", 1: "", 2: token[place] * 2}[number % 7 % 3]
    return held(await unary(arena.channel, INFO, b"", bearer(token[:place] + changed + token[place + 1 :])), *REFUSED)


def keys() -> Iterator[Attack]:
    """API keys: unknown, mistyped at every place, of another owner, ended, and what is no key."""

    async def sent(arena: Arena, *texts: str) -> str:
        return held(
            await unary(arena.channel, INFO, b"", *(("x-api-key", text) for text in texts)),
            *REFUSED,
            "CREDENTIALS_AMBIGUOUS",
        )

    async def changed(arena: Arena, place: int) -> str:
        good = arena.key.reveal()
        return await sent(arena, good[:place] + chr(ord(good[place]) ^ 1) + good[place + 1 :])

    for place in range(len(api_key.new("alk").reveal())):
        yield Attack(f"character_{place}", lambda arena, place=place: changed(arena, place))
    written: dict[str, Any] = {
        "unknown": lambda arena: api_key.new("alk").reveal(),
        "id_of_another": lambda arena: api_key.ApiKey("alk", api_key.new("alk").id, arena.key.secret).reveal(),
        "secret_of_another": lambda arena: api_key.ApiKey("alk", arena.key.id, api_key.new("alk").secret).reveal(),
        "prefix": lambda arena: api_key.ApiKey("adm", arena.key.id, arena.key.secret).reveal(),
        "capitals": lambda arena: arena.key.reveal().upper(),
        "blank_before": lambda arena: arena.key.reveal()[:-1],
        "twice_in_one": lambda arena: arena.key.reveal() * 2,
        "comma": lambda arena: f"{arena.key.reveal()},{arena.key.reveal()}",
        "bearer": lambda arena: f"Bearer {arena.key.reveal()}",
        "id_alone": lambda arena: arena.key.id,
        "sql": lambda arena: f"alk_{arena.key.id}' OR '1'='1_{arena.key.secret}",
        "wildcard": lambda arena: "alk_%_" + "0" * 49,
        "empty": lambda arena: "",
        "zeros": lambda arena: "alk_000000000000_" + "0" * 49,
        "long": lambda arena: "a" * 7000,
        "token": lambda arena: arena.plain.home.forge.token(),
    }
    for name, text in written.items():
        yield Attack(name, lambda arena, text=text: sent(arena, text(arena)))
    yield Attack("two", lambda arena: sent(arena, arena.key.reveal(), arena.key.reveal()))
    yield Attack("good_and_bad", lambda arena: sent(arena, arena.key.reveal(), api_key.new("alk").reveal()))
    yield Attack("expired", _expired)
    yield Attack("revoked", _revoked)
    yield Attack("key_as_token", _as_token)
    yield Attack("with_token", _with_token)


async def _expired(arena: Arena) -> str:
    key = await arena.plain.home.new_key("align", expires=time.time() - 60)
    return held(await unary(arena.channel, INFO, b"", with_key(key)), *REFUSED)


async def _revoked(arena: Arena) -> str:
    key = await arena.plain.home.new_key("align")
    await arena.plain.home.revoke(key)
    return held(await unary(arena.channel, INFO, b"", with_key(key)), *REFUSED)


async def _as_token(arena: Arena) -> str:
    return held(await unary(arena.channel, INFO, b"", bearer(arena.key.reveal())), *REFUSED)


async def _with_token(arena: Arena) -> str:
    return held(await unary(arena.channel, INFO, b"", with_key(arena.key), arena.token), "CREDENTIALS_AMBIGUOUS")


def client_certificates() -> Iterator[Attack]:
    """None, of another CA, out of date, for another purpose, with a weak key, and with names that are not identities."""
    stranger = certificates.authority()
    good = "spiffe://dev.local/attacker"
    odd_names = {
        "spiffe_no_path": [uri("spiffe://dev.local")],
        "spiffe_empty_segment": [uri("spiffe://dev.local//client")],
        "spiffe_dots": [uri("spiffe://dev.local/../client")],
        "spiffe_dot": [uri("spiffe://dev.local/./client")],
        "spiffe_capitals": [uri("SPIFFE://dev.local/client")],
        "spiffe_domain_capitals": [uri("spiffe://DEV.local/client")],
        "spiffe_user": [uri("spiffe://root@dev.local/client")],
        "spiffe_port": [uri("spiffe://dev.local:443/client")],
        "spiffe_query": [uri("spiffe://dev.local/client?admin")],
        "spiffe_fragment": [uri("spiffe://dev.local/client#admin")],
        "spiffe_percent": [uri("spiffe://dev.local/%63lient")],
        "spiffe_slash_at_the_end": [uri("spiffe://dev.local/client/")],
        "spiffe_long": [uri("spiffe://dev.local/" + "a" * 2048)],
        "spiffe_two": [uri(good), uri("spiffe://dev.local/client")],
        "spiffe_and_url": [uri(good), uri("https://dev.local/client")],
        "spiffe_bad_with_good_dns": [uri("spiffe://dev.local"), dns("client.dev.local")],
        "dns_space": [dns("client.dev.local admin")],
        "dns_star": [dns("*.dev.local")],
        "dns_empty_label": [dns("client..local")],
        "dns_long": [dns("a" * 64 + ".local")],
        "dns_quote": [dns('client".local')],
        "url_alone": [uri("https://dev.local/client")],
        "none": [],
    }

    def of(name: str, pair: Any) -> Attack:
        async def run(arena: Arena) -> str:
            async with arena.mtls.channel(pair(arena) if pair else None, anonymous=pair is None) as channel:
                # A refused handshake is UNAVAILABLE at the client; a certificate that authenticates nobody ends the call.
                return held(await unary(channel, INFO, b""), "UNAVAILABLE", "CREDENTIALS_INVALID", "CREDENTIALS_MISSING")

        return Attack(name, run)

    yield of("no_certificate", None)
    yield of("self_signed", lambda arena: certificates.authority())
    yield of("another_ca", lambda arena: certificates.client(stranger))
    yield of("expired", lambda arena: certificates.client(arena.mtls.home.ca, days=1, begun=3))
    yield of("not_yet_valid", lambda arena: certificates.client(arena.mtls.home.ca, begun=-3))
    yield of("the_ca_itself", lambda arena: arena.mtls.home.ca)
    yield of("for_servers_only", lambda arena: leaf(arena.mtls.home.ca, uri(good), usages=(SERVER,)))
    yield of("rsa_1024", lambda arena: leaf(arena.mtls.home.ca, uri(good), key=rsa.generate_private_key(65537, 1024)))
    yield of("rsa_exponent_3", lambda arena: leaf(arena.mtls.home.ca, uri(good), key=rsa.generate_private_key(3, 2048)))
    yield of("roca", lambda arena: leaf(arena.mtls.home.ca, uri(good), key=roca_private_key()))
    for name, names in odd_names.items():
        yield of(name, lambda arena, names=names: leaf(arena.mtls.home.ca, *names))
