"""The model's device, its precision, and what its errors mean."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.base import EngineStartError

log = logging.getLogger(__name__)

PREPARERS = max(2, min(8, (os.cpu_count() or 2) - 2))
"""Threads that prepare clips for a GPU. One runs at some 5,000 times real time; nearly all of it is spectrograms."""
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


_ALLOCATION: Final = re.compile(
    r"out[ _]of[ _]memory|alloc(ation)?_failed|allocate memory|CPUAllocator|bad_alloc|MemoryAllocation|not enough memory"
    # cuBLAS and cuDNN make their handles when first used, and say only this if there is no memory for one.
    r"|CU(BLAS|DNN)_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)


def is_allocation_failure(error: BaseException) -> bool:
    """Whether memory did not suffice, of a GPU or of the machine: PyTorch has a class for its own allocators alone.

    cuBLAS, cuDNN, cuFFT, CUDA itself and the CPU's allocator raise RuntimeError, with a text of their own.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _ALLOCATION.search(str(error)) is not None


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
