"""What kernels and weights keep of the memory, on a CPU."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

import torch

_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables: kernels kept by oneDNN, and by the layer between PyTorch and oneDNN."""
_KERNELS = 128  # a batch needs fewer: 30 for one clip, 100 for 20 clips of 20 lengths


def keep_few_kernels() -> None:
    """Limit the two kernel caches of oneDNN, least recently used first out; each holds 1,024 kernels by default.

    oneDNN compiles a kernel for every shape in a third of a millisecond; a clip of a new length needs some 30. Each takes half
    a megabyte, hardly any of it written to, but in one heap it occupies resident pages that tensors used before. Variables
    set in the environment are respected. Call it before oneDNN is first used.
    """
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, str(_KERNELS))


def drop_pages(tensor: torch.Tensor) -> None:
    """Drop the pages that hold only `tensor`, which must not be read again.

    For weights in a mapped file: the mapping of many tensors stays as long as one is used. Only contiguous tensors are dropped.
    """
    if not tensor.is_contiguous():
        return
    start = tensor.data_ptr()
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
