"""How the process keeps and returns memory on a CPU, where a fresh page costs as much as what is computed on it."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3), malloc.h
_LARGE, _KEPT = 8 << 20, 256 << 20
"""Bytes. Only tensors that exist once for a whole batch are as large as the first, never those between two layers. The second is
more than a batch leaves behind in smaller blocks."""
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables: kernels kept by oneDNN, and by the layer between PyTorch and oneDNN."""
_KERNELS = 128  # a batch needs fewer: 30 for one clip, 100 for 20 clips of 20 lengths


def keep_memory() -> None:
    """Have glibc keep freed memory for the next tensors, in one heap, until `return_memory`.

    By default it returns blocks to the system and requests new ones, whose pages the system clears one by one: 5 % of a
    batch's time. Very large blocks are still returned, for they would fragment the heap. Call it before threads start, which
    would get heaps of their own. Does nothing without glibc.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for what, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _KEPT)):
            libc.mallopt(what, value)


def keep_few_kernels() -> None:
    """Limit the two kernel caches of oneDNN, least recently used first out; each holds 1,024 kernels by default.

    oneDNN compiles a kernel for every shape in a third of a millisecond; a clip of a new length needs some 30. Each takes half
    a megabyte, hardly any of it written to, but in one heap it occupies resident pages that tensors used before. Variables
    set in the environment are respected. Call it before oneDNN is first used.
    """
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, str(_KERNELS))


def return_memory() -> None:
    """Return the memory that is kept and unused to the system."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
