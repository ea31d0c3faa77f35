"""A new authentication method is one module and one line in METHODS; this module is the new one."""

from __future__ import annotations

import grpc
import pytest

from aligner_client.api.v1.aligner_pb2 import AlignConfig, AlignRequest
from aligner_svc.config.security import METHODS, AuditSettings, AuthSettings
from interceptors.auth.method import AuthMethod
from interceptors.calls.principal import Principal, Rejected
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

REQUEST = AlignRequest(config=AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)


class Badge(AuthMethod):
    """Accepts one badge."""

    header = "x-badge"
    hint = "a badge (x-badge: ...)"

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def authenticate(self, credential, connection):
        if credential != "open sesame":
            return Rejected("badge_unknown")
        return Principal("badge:alice", "badge", scopes=frozenset({"align"}))


def build(settings) -> Badge:
    return Badge()


async def test_a_new_method_authenticates_calls(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(METHODS, "badge", f"{__name__}:build")
    engine = ScriptedEngine()
    parts = {"auth": AuthSettings(methods=("badge",)), "audit": AuditSettings(file=tmp_path / "audit")}
    async with serving(profile="prod", engine=engine, **parts) as server, calling(server.address) as stub:
        answer = await stub.Align(REQUEST, metadata=[("x-badge", "open sesame")], timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as rejected:
            await stub.Align(REQUEST, metadata=[("x-badge", "open barley")], timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.Align(REQUEST, timeout=60)
    assert len(answer.words) > 1
    assert engine.callers[0].client == "badge:alice"
    assert refusal(rejected.value).reason == "CREDENTIALS_INVALID"
    assert missing.value.details() == "authentication required: send a badge (x-badge: ...)"
    assert "badge_unknown" in (tmp_path / "audit").read_text()


def test_a_misspelt_method_is_refused_with_the_right_name() -> None:
    with pytest.raises(ValueError, match="no such method: did you mean api_key"):
        AuthSettings(methods=("api_kye",))
