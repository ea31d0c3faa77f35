"""The engine ray is for its callers the one on the cluster: what that can do, it can."""

from __future__ import annotations

import numpy as np
import pytest

from aligner_svc.config import Settings
from aligner_svc.domain import Caller, Clip, Token
from aligner_svc.engines.base import Engine, EngineResult, LiveEngine, PhoneEngine, RatedEngine
from aligner_svc.engines.halves.pocketsphinx import near
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.engines.ray_serve.engine import LiveRayEngine
from aligner_svc.engines.ray_serve.link import Link


@pytest.mark.parametrize("phones", [False, True])
async def test_a_call_has_the_phones_that_it_asks_for(monkeypatch: pytest.MonkeyPatch, phones: bool) -> None:
    asked: list[bool] = []

    async def align(*_arguments: object, phones: bool) -> EngineResult:
        asked.append(phones)
        return EngineResult((), 1.0)

    settings, link = Settings(), Link((), {}, 1, lambda why: None)
    there = near(settings, link, None)
    engine: Engine = LiveRayEngine(settings, link, there)
    assert isinstance(engine, PhoneEngine)
    assert isinstance(engine, RatedEngine)
    assert isinstance(engine, LiveEngine)
    assert engine.phone_sets == PocketSphinxEngine(settings.engine).phone_sets
    assert engine.support == there.support
    monkeypatch.setattr(there, "align", align)
    await engine.align(Clip(np.zeros(1, np.int16)), [Token("a", 0, 1, ("a",))], "en", Caller("me", None), phones=phones)
    assert asked == [phones]
    await engine.close()
