"""The two halves of the embedded engine: windows in the server, the processes that align them on other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from aligner_svc.config import Settings
from aligner_svc.domain import Caller
from aligner_svc.engines.batch_report import BatchWatch, QueueState
from aligner_svc.engines.halves import HalfSettings, Lanes
from aligner_svc.engines.pocketsphinx.engine import LONG, OTHERS, READER, SHORT, PocketSphinxEngine, Window
from aligner_svc.engines.pocketsphinx.wire import text_language
from aligner_svc.workers import Buffer, JsonValue
from aligner_svc.workers.pool import Reply

_TEXT_TIMEOUT: Final = 60.0


def near(settings: Settings, lanes: Lanes, watch: BatchWatch | None) -> PocketSphinxEngine:
    """See engines.halves.Halves. Windows wait at the replicas, not here: scaling sees them there."""
    engine = settings.engine.model_copy(update={"workers": lanes.at_once})
    return PocketSphinxEngine(engine, watch=watch, decoders=settings.decode.workers, elsewhere=lanes.lane)


def far(settings: HalfSettings) -> FarProcesses:
    """See engines.halves.Halves."""
    return FarProcesses(settings)


class FarProcesses:
    """Half (see engines/halves)."""

    def __init__(self, settings: HalfSettings) -> None:
        self._engine = PocketSphinxEngine(settings.engine, settings.sandbox)
        self.slots = settings.engine.workers

    async def start(self) -> None:
        await self._engine.start()

    async def call(self, lane: str, header: Mapping[str, JsonValue], payload: Buffer, caller: Caller) -> Reply:
        engine = self._engine
        if lane == READER:
            return await (await engine.reader.get()).call(header, payload, timeout=_TEXT_TIMEOUT, client=caller.client)
        queue = await engine.others.get() if lane == OTHERS else {SHORT: engine.short, LONG: engine.long}[lane]
        if text_language(header) is not None:
            return await queue.pool.call(header, payload, timeout=_TEXT_TIMEOUT, client=caller.client)
        done = await queue.batcher.submit(Window(header, np.frombuffer(payload, np.int16), caller), caller)
        return Reply(done.result.header, done.result.payload, done.queued + done.result.queued, done.result.busy)

    def queues(self) -> Sequence[QueueState]:
        others = self._engine.others.running
        return [queue.batcher.state() for queue in (self._engine.short, self._engine.long, *([others] if others else []))]

    async def close(self) -> None:
        await self._engine.close()
