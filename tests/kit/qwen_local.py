"""The devices of the Qwen engine on a thread of this process, where a test can reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tokenizers import Tokenizer

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.qwen.devices.model import DeviceBrokenError, Model
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item, decode_answer, decode_batch, encode_answer, encode_batch
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.workers import Buffer, JsonValue, WorkerDiedError
from aligner_svc.workers.pool import WorkerPool

T = TypeVar("T")


class LocalDevices:
    """Backend (see engines/qwen/devices/pool.py) of one device. What ends a process raises WorkerDiedError, without a retry."""

    count, ahead = 1, 0
    pools: Sequence[WorkerPool] = ()

    def __init__(self, settings: QwenSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "qwen-model")

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        self.model = await self._do(lambda: Model(self._settings))
        return DeviceLoaded.of(self.model.loaded.greeting()), Tokenizer.from_buffer(self.model.tokenizer())

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        header, payload = encode_batch(batch)

        def compute() -> tuple[Mapping[str, JsonValue], Buffer]:
            return encode_answer(self.model.run(self.model.prepare(decode_batch(header, payload))))

        return decode_answer(*await self._do(compute))

    async def check(self) -> None:
        await self._do(self.model.check)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            running.exception()
            raise
        except DeviceBrokenError as error:
            raise WorkerDiedError(str(error)) from None
