"""A new engine is one module and one line in ENGINES; this module is the new one."""

from __future__ import annotations

import pytest

from aligner_client.api.v1.aligner_pb2 import AlignConfig, AlignRequest, GetServerInfoRequest
from aligner_svc.config.engine import ENGINES, EngineSettings
from aligner_svc.errors import StartError
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, service, serving


class EvenEngine(ScriptedEngine):
    """Spreads the words evenly over the clip."""

    name = "even-1"


def build(settings, on_failed, watch) -> EvenEngine:
    return EvenEngine()


async def test_a_new_engine_serves_calls(monkeypatch) -> None:
    monkeypatch.setitem(ENGINES, "even", f"{__name__}:build")
    async with serving(engine_settings=EngineSettings(name="even")) as server, calling(server.address) as stub:
        assert (await stub.GetServerInfo(GetServerInfoRequest())).engine == "even-1"
        request = AlignRequest(config=AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
        answer = await stub.Align(request, timeout=60)
    assert answer.summary.engine == "even-1"
    assert [word.text for word in answer.words][:2] == TRANSCRIPT.split()[:2]


def test_an_engine_whose_library_is_absent_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(ENGINES, "absent", "no_such_library:build")
    with pytest.raises(StartError, match=r"needs no_such_library, which is not installed: pip install 'aligner-svc\[absent\]'"):
        service(engine_settings=EngineSettings(name="absent"))


def test_a_misspelt_engine_is_refused_with_the_right_name() -> None:
    with pytest.raises(ValueError, match="no such engine: did you mean qwen"):
        EngineSettings(name="qwenn")
