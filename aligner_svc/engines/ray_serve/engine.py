"""An engine whose processes are on a Ray cluster. Words, windows and answers are made here, by the same code as without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from aligner_svc.config import Settings
from aligner_svc.domain import Caller, Clip, ProgressSink, Token
from aligner_svc.engines.base import (
    Capacity,
    Engine,
    EngineReport,
    EngineResult,
    EngineStartError,
    LiveEngine,
    OnFailed,
    OnSpans,
    PhoneEngine,
    PhoneSet,
    RatedEngine,
    Support,
)
from aligner_svc.engines.batch_report import BatchWatch
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.ray_serve.credentials import environment
from aligner_svc.engines.ray_serve.link import Link
from aligner_svc.engines.ray_serve.replica import halves
from aligner_svc.workers import WorkerRefusedError

_AHEAD = 4
"""Calls given out for each process that there may be: those that wait do so at the replicas, where scaling sees them."""


def build(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> RayEngine:
    """See engines.base.Build. A LiveEngine if the one on the cluster is. Raises EngineStartError for one without credentials."""
    ray = settings.ray
    variables = environment(ray.directory, ray.address, os.environ)
    link = Link((ray.address, ray.application), variables, _AHEAD * ray.max_replicas * ray.cpus, on_failed)
    near = halves(ray.engine).near(settings, link, watch)
    return LiveRayEngine(settings, link, near) if isinstance(near, LiveEngine) else RayEngine(settings, link, near)


class RayEngine:
    """PhoneEngine and RatedEngine (see engines/base.py): name, languages and phones are those of the one on the cluster."""

    def __init__(self, settings: Settings, link: Link, near: Engine) -> None:
        """`near`: the half of the engine that is here, and uses `link`."""
        ray = settings.ray
        at_once = ray.max_replicas * ray.cpus
        self._settings = ray
        self.link = link
        self._near = near
        self.name = near.name
        self.languages = near.languages
        self.max_seconds = near.max_seconds
        self.phone_sets: Mapping[str, PhoneSet] = near.phone_sets if isinstance(near, PhoneEngine) else {}
        self.support: Mapping[str, Support] = near.support if isinstance(near, RatedEngine) else {}
        self.capacity = Capacity(lowest=ray.min_replicas * ray.cpus + settings.decode.workers + 1, at_once=at_once)
        self.report: EngineReport = replace(near.report, slots=at_once, pools=(link.pool,))

    async def start(self) -> None:
        ray = self._settings
        try:
            if not await self.link.start(ray.start_timeout):
                hint = "aligner cluster status shows whether it is up; a node of it has to run on this machine"
                raise EngineStartError(f"the Ray cluster at {ray.address} does not serve: {self.link.why_not}; {hint}")
        except WorkerRefusedError as error:
            raise EngineStartError(str(error)) from None
        await self._near.start()

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        """See Engine.tokenise."""
        return await self._near.tokenise(transcript, language)

    async def align(
        self,
        clip: Clip,
        tokens: Sequence[Token],
        language: str,
        caller: Caller,
        progress: ProgressSink | None = None,
        *,
        phones: bool = False,
    ) -> EngineResult:
        """See PhoneEngine.align."""
        near = self._near
        align = partial(near.align, phones=phones) if isinstance(near, PhoneEngine) else near.align
        return await align(clip, tokens, language, caller, progress)

    async def close(self) -> None:
        await asyncio.gather(self._near.close(), self.link.close())


class LiveRayEngine(RayEngine):
    """LiveEngine: the windows of what is being spoken go the same way."""

    def __init__(self, settings: Settings, link: Link, near: LiveEngine) -> None:
        super().__init__(settings, link, near)
        self._live = near

    async def follow(
        self,
        audio: LiveAudio,
        text: LiveText,
        language: str,
        caller: Caller,
        *,
        on_spans: OnSpans,
        progress: ProgressSink | None = None,
    ) -> EngineResult:
        """See LiveEngine.follow."""
        return await self._live.follow(audio, text, language, caller, on_spans=on_spans, progress=progress)
