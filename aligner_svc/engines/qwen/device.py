"""Where the model runs, in what precision, and by whom: one thread, which nobody else shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.batching import DeviceMemoryError
from aligner_svc.engines.qwen.forward import TimestampSlots
from aligner_svc.engines.qwen.memory import return_memory
from aligner_svc.engines.qwen.preparation import Prepared

_LONG_ROWS = 2048
"""Rows of a batch, a minute and a half of audio, above which its memory is given back. What others leave is kept."""
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def resolve_device(settings: QwenSettings) -> torch.device:
    """The device the settings mean. Raises EngineStartError if it is not there."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        missing = "no GPU answers" if torch.version.cuda else "this PyTorch has no CUDA, take the CUDA build of the same version"
        raise EngineStartError(f"device {settings.device}: {missing}; or give --device cpu")
    device = torch.device("cuda" if settings.device == "auto" else settings.device)
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineStartError(f"device {settings.device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def resolve_dtype(settings: QwenSettings, device: torch.device) -> torch.dtype:
    """The precision the settings mean on that device."""
    if settings.dtype != "auto":
        return _DTYPES[settings.dtype]
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
    return torch.bfloat16 if native else torch.float32


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - there is no public question


def _checked(answers: list[TimestampSlots]) -> list[TimestampSlots]:
    """Raises RuntimeError where the device computed NaN: the batcher finds out whose fault it is."""
    if not all(np.isfinite(slots.probabilities).all() for slots in answers):
        raise RuntimeError("the device answers with numbers that are none")
    return answers


def thread_pool(count: int, name: str, *, cores: int) -> ThreadPoolExecutor:
    """`count` threads, whose tensor operations take `cores` cores each.

    OpenMP gives every thread that asks for more than one a pool of its own. As soon as all of them are more than the
    machine has cores, its threads go to sleep between any two operations instead of waiting awake for the next: 10 to 20 % of a
    batch's time. So one thread may ask.
    """
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_use, initargs=(cores,))


def _use(cores: int) -> None:
    # Asked first: a thread that was not takes what the last one set, whichever that was, with its first operation.
    torch.get_num_threads()
    torch.set_num_threads(cores)


class ModelThread:
    """The only thread that touches the model: qwen-asr's modules are not made for two."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._executor = thread_pool(1, "qwen-model", cores=torch.get_num_threads())
        self._forward: Callable[[Sequence[Prepared]], list[TimestampSlots]] | None = None

    async def load(self, build: Callable[[], Callable[[Sequence[Prepared]], list[TimestampSlots]]]) -> None:
        """Build the model in the thread that will run it."""
        self._forward = await asyncio.get_running_loop().run_in_executor(self._executor, build)

    async def run(self, batch: Sequence[Prepared]) -> Sequence[TimestampSlots]:
        """For a Batcher. Raises DeviceMemoryError. Cancelled, it ends only when the device is free again."""
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            work.exception()
            raise

    def close(self) -> None:
        """Idempotent; what runs is finished in the background."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: Sequence[Prepared]) -> list[TimestampSlots]:
        assert self._forward is not None
        long = self._device.type == "cpu" and sum(item.rows for item in batch) > _LONG_ROWS
        if long:
            return_memory()  # what shorter batches left lies in pieces: it would come on top
        try:
            return _checked(self._forward(batch))
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
        finally:
            if long:
                return_memory()
        # Outside of the handlers: the exception's frames hold the tensors that have to go before the halves are tried.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceMemoryError
