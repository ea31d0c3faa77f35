"""A child process for each device. The server's own process imports no torch, and outlives a device that dies."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from tokenizers import Tokenizer

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.batching import DeviceMemoryError
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item, decode_answer, encode_batch
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.workers import WorkerRefusedError
from aligner_svc.workers.pool import Reply, WorkerPool
from aligner_svc.workers.threads import off_loop

log = logging.getLogger(__name__)

_WORKER: Final = "aligner_svc.engines.qwen.devices.worker"
_HUNG_AFTER: Final = 10.0
"""Seconds without processor time. A thread that waits for a GPU spins, and a long pass on a CPU computes: neither hangs."""
_PASS_SECONDS: Final = {"cuda": 120.0, "cpu": None}
"""For one batch on a GPU, which takes less than a second; waiting for a GPU that hangs is busy. On a CPU batches take minutes."""
_AHEAD: Final = {"cuda": 1, "cpu": 0}
"""The next batch is prepared and copied while a GPU computes, which would wait for it. A CPU would prepare it on the cores that
compute, 5 ms for a batch that takes seconds, and callers of one that waits there could no longer leave it."""
_PASSED_ON: Final = (
    *("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "TORCH", "PYTORCH_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_CACHE_HOME"),
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "LRU_CACHE_CAPACITY", "MALLOC_", "LD_PRELOAD"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Beginnings of the variables that a child gets, in either case: what CUDA, PyTorch, OpenMP and the hub's client read."""


class Backend(Protocol):
    """Where the batches are computed."""

    count: int
    """Devices."""
    ahead: int
    """Batches that each is given besides the one that it computes; known once it has started."""
    pools: Sequence[WorkerPool]

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        """Raises EngineStartError, WorkerDiedError."""

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        """`run` of a Batcher. Raises DeviceMemoryError. Ends only when the device is free again, even if cancelled."""

    async def check(self) -> None:
        """Have a device compute a clip that is known to work. Raises if it cannot."""

    async def close(self) -> None:
        """Idempotent. Batches that run raise WorkerUnavailableError."""


class Devices:
    """Backend of child processes. A batch whose process dies is tried once more, on another device or when it is replaced."""

    def __init__(self, settings: QwenSettings, module: str = _WORKER) -> None:
        names = device_names(settings.device)
        self.count = len(names)
        self.ahead = 0
        limits = (settings.batch_tokens, settings.batch_items)
        self._pass_seconds: float | None = None
        self._pool = WorkerPool(
            module,
            self.count,
            args=(settings.model, settings.revision, settings.dtype, *map(str, limits), str(self.count)),
            name="qwen",
            start_timeout=None,  # the first start fetches the checkpoint
            hung_after=_HUNG_AFTER,
            places=names,
            spare=True,
            outage=0.0,
            blames_calls=False,  # a driver that fails ends the process with any signal
            at_once=1 + max(_AHEAD.values()),
            environment=_environment(),
        )
        self.pools: Sequence[WorkerPool] = (self._pool,)

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        try:
            await self._pool.start()
        except WorkerRefusedError as error:
            raise EngineStartError(str(error)) from None
        loaded = DeviceLoaded.of(self._pool.greeting)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        self._pass_seconds = _PASS_SECONDS[loaded.device_type]
        self.ahead = _AHEAD[loaded.device_type]
        reply = await self._pool.call({"tokenizer": True})
        tokenizer = await asyncio.to_thread(Tokenizer.from_buffer, bytes(reply.payload))
        return loaded, tokenizer

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        header, payload = await off_loop(encode_batch, batch, size=sum(item.nbytes for item in batch))
        work = asyncio.create_task(self._pool.call(header, payload, timeout=self._pass_seconds))
        reply = await _to_the_end(work)
        if "memory" in reply.header:
            raise DeviceMemoryError
        return decode_answer(reply.header, reply.payload)

    async def check(self) -> None:
        await self._pool.call({"check": True}, timeout=self._pass_seconds)

    async def close(self) -> None:
        await self._pool.close()


async def _to_the_end(work: asyncio.Task[Reply]) -> Reply:
    """Its result. If cancelled, wait for it nevertheless: without its process the device would serve no one for seconds."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        work.exception()
        raise


def device_names(setting: str) -> list[str]:
    """One for each process, from the setting qwen.device."""
    if setting != "cuda:all":
        return setting.split(",")
    return [f"cuda:{number}" for number in range(_gpus())] or ["cuda"]  # whose process says what the GPU lacks


def _gpus() -> int:
    """GPUs that the driver shows to this process, without PyTorch and without a context on any. 0 without a driver."""
    count = ctypes.c_int()
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith(_PASSED_ON)}
