"""Device, precision and thread of the model."""

from __future__ import annotations

import asyncio
import ctypes
import logging
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

log = logging.getLogger(__name__)

_LONG_ROWS = 2048
"""Rows of a batch, a minute and a half of audio, above which its memory is returned to the system. That of others is kept."""
_MIN_DRIVER = {11: "450", 12: "525", 13: "580"}
"""By major version of CUDA: NVIDIA's table of minor version compatibility."""
_NATIVE_BF16 = (8, 0)
"""Compute capability: Ampere. A T4 (7.5) emulates it."""
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def resolve_device(settings: QwenSettings) -> torch.device:
    """The device of the settings. Raises EngineStartError if the machine has none."""
    if settings.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if settings.device != "auto":
            raise EngineStartError(f"device {settings.device}: {no_gpu()}; or use --device cpu")
        log.warning("device auto: a CPU is used, some 1,000 times slower than a GPU: %s", no_gpu())
        return torch.device("cpu")
    device = torch.device("cuda" if settings.device == "auto" else settings.device)
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineStartError(f"device {settings.device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def no_gpu() -> str:
    """Why PyTorch has no GPU here, and what it needs."""
    built = torch.version.cuda
    if not built:
        return "this PyTorch has no CUDA, install the CUDA build of that version"
    major = int(built.partition(".")[0])
    wanted = f"PyTorch {torch.__version__} is built for CUDA {built}"
    if major in _MIN_DRIVER:
        wanted += f" and needs an NVIDIA driver {_MIN_DRIVER[major]} or newer"
    driver = _driver_cuda()
    if driver is None:
        return f"no NVIDIA driver was found; {wanted}"
    if driver < (major, 0):
        return f"the NVIDIA driver is too old, it has CUDA {driver[0]}.{driver[1]}; {wanted}, or install a build for that CUDA"
    return f"no GPU was found, though its driver was (CUDA_VISIBLE_DEVICES, container runtime, nvidia-smi); {wanted}"


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the installed driver has; None without a driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def resolve_dtype(settings: QwenSettings, device: torch.device) -> torch.dtype:
    """The precision of the settings; "auto" is bf16 where the device multiplies it natively."""
    native = _multiplies_bf16(device)
    if settings.dtype == "auto":
        return torch.bfloat16 if native else torch.float32
    if settings.dtype == "bf16" and not native:
        log.warning("dtype bf16: %s emulates it, slower than fp32 and less exact", device)
    return _DTYPES[settings.dtype]


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cpu":
        # There is no public function. Builds without oneDNN, such as macOS', have neither.
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())
    if torch.version.hip:
        return torch.cuda.is_bf16_supported()
    return torch.cuda.get_device_capability(device) >= _NATIVE_BF16  # is_bf16_supported() says yes where it is emulated


def compute_exactly() -> None:
    """Let float32 on a GPU be float32: cuDNN's convolutions take TF32, of 10 bits, unless told not to."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def describe_gpu(device: torch.device) -> str:
    """A comma, the name and the free memory of a GPU; "" for a CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f", {torch.cuda.get_device_name(device)}, {free / (1 << 30):.0f} of {total / (1 << 30):.0f} GiB free"


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
