"""Device, precision and thread of the model."""

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
"""Rows of a batch, a minute and a half of audio, above which its memory is returned to the system. That of others is kept."""
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def resolve_device(settings: QwenSettings) -> torch.device:
    """The device of the settings. Raises EngineStartError if the machine has none."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        missing = "no GPU was found" if torch.version.cuda else "this PyTorch has no CUDA, install the CUDA build of that version"
        raise EngineStartError(f"device {settings.device}: {missing}; or use --device cpu")
    device = torch.device("cuda" if settings.device == "auto" else settings.device)
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineStartError(f"device {settings.device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def resolve_dtype(settings: QwenSettings, device: torch.device) -> torch.dtype:
    """The precision of the settings; "auto" is bf16 where the device multiplies it natively."""
    if settings.dtype != "auto":
        return _DTYPES[settings.dtype]
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
    return torch.bfloat16 if native else torch.float32


def describe_gpu(device: torch.device) -> str:
    """A comma, the name and the free memory of a GPU; "" for a CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f", {torch.cuda.get_device_name(device)}, {free / (1 << 30):.0f} of {total / (1 << 30):.0f} GiB free"


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - there is no public function


def thread_pool(count: int, name: str, *, cores: int) -> ThreadPoolExecutor:
    """`count` threads, whose tensor operations use `cores` cores each.

    Only one thread of the process should use several: OpenMP gives each that does a pool of its own, and once the pools have
    more threads than the machine has cores, they sleep between operations instead of spinning: 10 to 20 % of a batch's time.
    """
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_use, initargs=(cores,))


def _use(cores: int) -> None:
    # Read first: otherwise the thread takes the number another thread set last, with its first operation.
    torch.get_num_threads()
    torch.set_num_threads(cores)


class ModelThread:
    """The only thread that uses the model: qwen-asr's modules are not thread-safe."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._executor = thread_pool(1, "qwen-model", cores=torch.get_num_threads())
        self._forward: Callable[[Sequence[Prepared]], list[TimestampSlots]] | None = None

    async def load(self, build: Callable[[], Callable[[Sequence[Prepared]], list[TimestampSlots]]]) -> None:
        """Build the model in the thread that will run it."""
        self._forward = await asyncio.get_running_loop().run_in_executor(self._executor, build)

    async def run(self, batch: Sequence[Prepared]) -> Sequence[TimestampSlots]:
        """`run` of a Batcher. Raises DeviceMemoryError. Ends only when the device is free again, even if cancelled."""
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            work.exception()
            raise

    def close(self) -> None:
        """Idempotent; a running batch ends in the background."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: Sequence[Prepared]) -> list[TimestampSlots]:
        assert self._forward is not None
        long = self._device.type == "cpu" and sum(item.rows for item in batch) > _LONG_ROWS
        if long:
            return_memory()  # shorter batches left free memory in pieces, too small to be used again
        try:
            answers = self._forward(batch)
            if not all(np.isfinite(slots.probabilities).all() for slots in answers):
                raise RuntimeError("the device computed NaN")  # the batcher finds out for which items
            return answers
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
        finally:
            if long:
                return_memory()
        # Outside the handlers: the exception's frames hold tensors that must be freed before the halves are tried.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceMemoryError
