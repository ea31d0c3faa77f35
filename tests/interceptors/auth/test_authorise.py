"""Authorisation around all four kinds of RPC, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors import CallInterceptor, Recovery, RequestId, Requests, current_call
from interceptors.auth.authorise import Authorise
from interceptors.auth.policy import Policy
from interceptors.calls.principal import Principal
from interceptors.calls.security_event import Event
from interceptors.rules.file import RulesFile
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, chain_server, start

SERVED = tuple(f"/{SERVICE}/{kind}" for kind in KINDS)
WHO = "test-caller"
ALL = f'[methods]\n"/{SERVICE}/*" = ["align"]\n'


class Trusting(CallInterceptor):
    """Stands in for authentication: takes the principal and its scopes from a header; without it there is no principal."""

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        name, _, scopes = dict(context.invocation_metadata()).get(WHO, "").partition(" ")
        if name:
            current_call().principal = Principal(name, "api_key", frozenset(scopes.split()))
        yield


def as_(name: str) -> list[tuple[str, str]]:
    return [(WHO, name), ("x-request-id", "mine")]


class Door:
    """A server with the chain's relevant part, and what it recorded."""

    def __init__(self, text: str = ALL, *, dry_run: bool = False, exempt=(), policy=None) -> None:
        self.events: list = []
        self.script = KindsHandler()
        fixed = Policy.parse(text, "policy.toml", SERVED)
        self.guard = Authorise(
            policy or (lambda: fixed), served=SERVED, exempt=exempt, dry_run=dry_run, record=self.events.append
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[aio.Channel]:
        self.refused: list = []
        refused = self.refused

        class Witness(CallInterceptor):
            @asynccontextmanager
            async def around(self, method, context) -> AsyncIterator[None]:
                try:
                    yield
                except Exception as error:
                    refused.append(error)
                    raise

        chain = (Recovery("test"), RequestId(), Witness(), Trusting(), self.guard, Requests())
        async with chain_server(chain, self.script) as server:
            yield server.channel


async def refusal(channel: aio.Channel, kind: str, name: str, body: bytes = b"body") -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(aio.AioRpcError) as error:
        await answer(start(channel, kind, body, metadata=as_(name)))
    status = status_pb2.Status.FromString(dict(error.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.value.code(), info.reason, error.value.details()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_the_scope_is_refused_with_its_name(kind) -> None:
    door = Door()
    async with door.open() as channel:
        assert await answer(start(channel, kind, metadata=as_("key:1 align"))) == b"body"
        code, reason, message = await refusal(channel, kind, "key:2 other")
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert message == "the caller may not call this method: it needs the scope align"
    [error] = door.refused
    assert (error.check, error.principal) == ("scope_missing", "key:2")
    assert door.events == []  # the audit interceptor records refusals, once for all of the chain


@pytest.mark.parametrize("kind", KINDS)
async def test_a_denied_calls_body_is_not_read(kind) -> None:
    door = Door()
    async with door.open() as channel:
        await refusal(channel, kind, "key:2", bytes(4 << 20))
    assert door.script.read == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_a_principal_is_refused_even_if_authentication_let_it_pass(kind) -> None:
    for dry_run in (False, True):
        door = Door(dry_run=dry_run)
        async with door.open() as channel:
            code, reason, _ = await refusal(channel, kind, "")
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")
        assert door.refused[0].check == "principal_missing"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exempt", [SERVED, [f"/{SERVICE}/*"]])
async def test_an_exempt_method_needs_no_principal(kind, exempt) -> None:
    door = Door(f'[methods]\n"/{SERVICE}/*" = []\n', exempt=exempt)
    async with door.open() as channel:
        assert await answer(start(channel, kind))


async def test_an_exempt_name_is_not_a_prefix() -> None:
    door = Door(exempt=["/test.Kind/*", f"/{SERVICE}/Unary", "/*"])
    async with door.open() as channel:
        for kind in KINDS:
            assert (await refusal(channel, kind, ""))[0] == grpc.StatusCode.UNAUTHENTICATED


async def test_only_an_authenticated_client_learns_that_a_method_is_unknown() -> None:
    door = Door()
    async with door.open() as channel:
        assert (await refusal(channel, "Other", "key:1"))[0] == grpc.StatusCode.UNIMPLEMENTED
        assert (await refusal(channel, "Other", ""))[0] == grpc.StatusCode.UNAUTHENTICATED


async def test_a_method_that_the_policy_does_not_list_is_denied() -> None:
    door = Door(f'[methods]\n"{SERVED[0]}" = []\n"{SERVED[1]}" = ["admin", "align"]\n')
    async with door.open() as channel:
        assert (await refusal(channel, KINDS[0], "key:1 align admin"))[2].endswith("no scope grants access to it")
        assert (await refusal(channel, KINDS[1], "key:1"))[2].endswith("it needs one of the scopes admin, align")
        assert (await refusal(channel, KINDS[2], "key:1 align admin"))[2].endswith("no scope grants access to it")
    assert [error.check for error in door.refused] == ["scope_missing", "scope_missing", "method_not_listed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_dry_run_records_and_lets_pass(kind) -> None:
    door = Door(dry_run=True)
    async with door.open() as channel:
        assert await answer(start(channel, kind, metadata=as_("key:1 align")))
        assert door.events == []
        assert await answer(start(channel, kind, metadata=as_("key:2")))
    [event] = door.events
    assert event.event == Event.AUTHORISATION_WOULD_DENY
    assert (event.check, event.principal, event.request_id) == ("scope_missing", "key:2", "mine")
    assert event.method == f"/{SERVICE}/{kind}"
    assert event.detail == "it needs the scope align"
    assert event.peer.startswith("ipv4:127.0.0.1:")
    assert event.user_agent.startswith("grpc-python-asyncio/")


async def test_a_new_policy_applies_to_the_next_call(tmp_path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(ALL)
    policy = RulesFile(file, partial(Policy.parse, served=SERVED), lambda event: None, 1)
    door = Door(policy=lambda: policy.current)
    async with door.open() as channel:
        await refusal(channel, KINDS[0], "key:1")
        file.write_text(f'{ALL}[principals]\n"key:1" = ["align"]\n')
        policy.reload()
        assert await answer(start(channel, KINDS[0], metadata=as_("key:1")))
        file.write_text("nonsense")
        policy.reload()
        assert await answer(start(channel, KINDS[0], metadata=as_("key:1")))
        file.write_text(ALL)
        policy.reload()
        assert (await refusal(channel, KINDS[0], "key:1"))[0] == grpc.StatusCode.PERMISSION_DENIED
