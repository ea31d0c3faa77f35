"""Every known attack on tokens, through TLS and the whole chain: refused alike and recorded with its check."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
import pytest_asyncio

from tests.kit.guarded import Home, bearer, info, with_key
from tests.kit.refusals import refusal
from tests.kit.token_forge import ACCEPTED, ATTACKS, Accepted, Attack
from tests.kit.waiting import eventually

REFUSED_ALIKE = ("UNAUTHENTICATED", "CREDENTIALS_INVALID", "the credential is not accepted")
EXPIRED = ("UNAUTHENTICATED", "TOKEN_EXPIRED", "the credential has expired")


class Sides:
    """The same server twice: one asks for client certificates, one does not."""

    def __init__(self, homes: dict[bool, Home], channels: dict[bool, grpc.aio.Channel]) -> None:
        self.homes = homes
        self.channels = channels

    def call(self, token: str, *, certificate: bool, name: str):
        return info(self.channels[certificate], bearer(token), ("x-request-id", name))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sides(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sides]:
    homes = {mtls: Home(tmp_path_factory.mktemp("home"), mtls=mtls) for mtls in (True, False)}
    async with AsyncExitStack() as stack:
        channels = {}
        for mtls, home in homes.items():
            server = await stack.enter_async_context(home.serving())
            channels[mtls] = await stack.enter_async_context(home.connect(server))
        yield Sides(homes, channels)


def test_there_are_enough() -> None:
    assert len({attack.name for attack in ATTACKS if attack.sendable}) >= 30


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.sendable], ids=lambda attack: attack.name)
async def test_refused(sides: Sides, attack: Attack) -> None:
    home = sides.homes[attack.certificate]
    token = attack.token(home.forge)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await sides.call(token, certificate=attack.certificate, name=attack.name)
    reported = refusal(error.value)
    if attack.check == "token_too_large" and reported.reason == "HEADERS_TOO_LARGE":
        return  # the header limits stand before the authentication, and are no business of the audit
    assert (reported.code.name, reported.reason, reported.message) == (EXPIRED if attack.check == "expired" else REFUSED_ALIKE)
    [line] = await home.events_of(attack.name)
    assert (line["event"], line["check"]) == ("authentication_failed", attack.check)
    assert line["method"] == "/aligner.v1.Aligner/GetServerInfo"
    assert token.rpartition(".")[2] not in home.audit.read_text() or not token.rpartition(".")[2]


@pytest.mark.parametrize("good", ACCEPTED, ids=lambda good: good.name)
async def test_accepted(sides: Sides, good: Accepted) -> None:
    """Let in; whether it may then do what it asks for is its scopes' to say."""
    call = sides.call(good.token(sides.homes[good.certificate].forge), certificate=good.certificate, name=f"good-{good.name}")
    if "align" in good.scopes:
        assert (await call).engine == "scripted-1"
        return
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_one_megabyte_is_refused_before_it_is_read(sides: Sides) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await sides.call("x" * (1 << 20), certificate=False, name="large")
    assert error.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    assert (await sides.call(sides.homes[False].forge.token(), certificate=False, name="after")).engine == "scripted-1"


async def test_replay_of_a_revoked_key(sides: Sides) -> None:
    """And a client cannot tell it from a key that never was, a mistyped one, or another's secret."""
    home, channel = sides.homes[False], sides.channels[False]
    key, other = await home.new_key("align"), await home.new_key("align")
    assert (await info(channel, with_key(key))).engine == "scripted-1"
    await home.revoke(key)

    async def noticed() -> bool:
        return await info(channel, with_key(key), ("x-request-id", "revoked")).code() == grpc.StatusCode.UNAUTHENTICATED

    await eventually(noticed, "the key to be refused")
    [line] = await home.events_of("revoked")
    assert (line["event"], line["check"], line["principal"]) == ("key_used_after_revocation", "key_revoked", f"key:{key.id}")
    good = other.reveal()
    swapped = good.replace(other.id, key.id)
    tries = {"revoked": key.reveal(), "mistyped": good[:-1] + "!", "swapped": swapped, "empty": "", "foreign": "sk_live_1234"}
    reported = set()
    for name, text in tries.items():
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await info(channel, ("x-api-key", text), ("x-request-id", f"key-{name}"))
        refused = refusal(error.value)
        reported.add((refused.code.name, refused.reason, refused.message))
        [line] = await home.events_of(f"key-{name}")
        assert line["check"].startswith("key_")
    assert reported == {REFUSED_ALIKE}
    assert good.split("_")[2] not in home.audit.read_text()
