"""The two halves of the Qwen engine: words and prompts in the server, batches and devices on other machines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from tokenizers import Tokenizer

from aligner_svc.config import Settings
from aligner_svc.domain import Caller
from aligner_svc.engines.batch_report import BatchWatch, QueueState
from aligner_svc.engines.halves import CallPool, HalfSettings, Lanes
from aligner_svc.engines.qwen.devices.pool import Devices
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item, decode_answer, decode_batch, encode_answer, encode_batch
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.workers import Buffer, JsonValue
from aligner_svc.workers.pool import Reply, WorkerPool
from aligner_svc.workers.threads import off_loop

_LANE: Final = "qwen"
_TIMEOUT: Final = 600.0
"""Seconds for one clip of a caller without a deadline; on a CPU a full batch takes minutes."""
_START_TIMEOUT: Final = 60.0


def near(settings: Settings, lanes: Lanes, watch: BatchWatch | None) -> QwenEngine:
    """See engines.halves.Halves. Clips are sent one by one, and are batched where the devices are."""
    engine = settings.engine.model_copy(update={"queue": settings.engine.queue + lanes.at_once})
    one_by_one = settings.qwen.model_copy(update={"batch_items": 1})
    return QwenEngine(engine, one_by_one, watch=watch, devices=_Elsewhere(lanes.lane(_LANE), lanes.at_once))


def far(settings: HalfSettings) -> FarDevices:
    """See engines.halves.Halves."""
    return FarDevices(settings)


class _Elsewhere:
    """Backend (see devices/pool.py)."""

    pools: Sequence[WorkerPool] = ()

    def __init__(self, lane: CallPool, at_once: int) -> None:
        self.count, self.ahead = at_once, 0
        self._lane = lane

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        reply = await self._lane.call({"start": True}, timeout=_START_TIMEOUT)
        return DeviceLoaded.of(reply.header), await asyncio.to_thread(Tokenizer.from_buffer, bytes(reply.payload))

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        (item,) = batch
        header, payload = await off_loop(encode_batch, batch, size=item.nbytes)
        deadline, timeout = item.caller.deadline, _TIMEOUT
        if deadline is not None:
            timeout = min(timeout, deadline - asyncio.get_running_loop().time())
        reply = await self._lane.call(header, payload, timeout=timeout, client=item.caller.client)
        return decode_answer(reply.header, reply.payload)

    async def check(self) -> None:
        """Nothing: each replica checks its own devices."""

    async def close(self) -> None:
        """Nothing."""


class KeptDevices(Devices):
    """Keeps what the devices say as they start, for the other half."""

    loaded: DeviceLoaded
    tokenizer: bytes

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        self.loaded, tokenizer = await super().start()
        self.tokenizer = str(tokenizer.to_str()).encode()
        return self.loaded, tokenizer


class FarDevices:
    """Half (see engines/halves)."""

    def __init__(self, settings: HalfSettings, devices: KeptDevices | None = None) -> None:
        """`devices`: instead of those that the settings name."""
        self._devices = devices or KeptDevices(settings.qwen)
        self._engine = QwenEngine(settings.engine, settings.qwen, devices=self._devices)
        self.slots = settings.qwen.batch_items * self._devices.count

    async def start(self) -> None:
        await self._engine.start()

    async def call(self, lane: str, header: Mapping[str, JsonValue], payload: Buffer, caller: Caller) -> Reply:
        if "start" in header:
            return Reply(self._devices.loaded.greeting(), memoryview(self._devices.tokenizer), 0.0, 0.0)
        (item,) = decode_batch(header, payload)
        done = await self._engine.batcher.submit(item, caller)
        answer, body = encode_answer([done.result])
        return Reply(dict(answer), memoryview(body), done.queued, done.busy)

    def queues(self) -> Sequence[QueueState]:
        return [self._engine.batcher.state()]

    async def close(self) -> None:
        await self._engine.close()
