"""A process's memory on a CPU: a fresh page costs as much as what is computed on it, and one that nobody uses is not free."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""mallopt(3), malloc.h."""
_LARGE, _KEPT = 8 << 20, 256 << 20
"""Bytes. Only what exists once for a whole batch is as large as the first, and what lies between two layers never. The second is
more than a batch leaves behind that is not given back as a whole."""
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables: how many kernels oneDNN keeps, and how many the layer between PyTorch and oneDNN holds on to."""
_KERNELS = 128
"""More than a batch calls for: 30 for one clip, 100 for 20 clips of as many lengths."""


def keep_memory() -> None:
    """Have glibc keep for the next tensor what the last one left, in one heap, until `return_memory`.

    Left to itself it gives blocks back to the system and asks for others, whose pages the system clears one by one: 5 % of a
    batch's time. Very large ones it does give back: they would lie between others in pieces. To be called before there are
    threads, which get heaps of their own otherwise. Elsewhere than on glibc nothing happens.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for what, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _KEPT)):
            libc.mallopt(what, value)


def keep_few_kernels() -> None:
    """Have oneDNN forget the kernels that were not called for the longest time; both of its caches hold 1,024 otherwise.

    It compiles one for every shape in a third of a millisecond; a clip of a length not seen before brings some 30. Each takes
    half a megabyte: hardly any of it is written to, but within one heap it lies where tensors were, on pages that are there.
    What the environment says is left so. To be called before oneDNN is first used.
    """
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, str(_KERNELS))


def return_memory() -> None:
    """Give what is kept and not used back to the system."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget(tensor: torch.Tensor) -> None:
    """Give back the pages that hold nothing but `tensor`, whose numbers are lost: nobody may read them again.

    Of weights that lie in a mapped file: they are many tensors in one mapping, which stays as long as one of them is used.
    A tensor whose numbers lie between others' is left alone.
    """
    if not tensor.is_contiguous():
        return
    start = tensor.data_ptr()
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
