"""Landlock with an empty set of rules: no file may be opened or run, no TCP port used, nobody outside signalled.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

# The same numbers on every machine: they came after the tables were unified.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION: Final = 1

# Rights of the file system by the version of the interface that brought them; a kernel refuses those it does not know.
_FILES: Final = ((1, 0x1FFF), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NETWORK: Final = ((4, 0b11),)  # bind and connect, TCP
_SCOPES: Final = ((6, 0b11),)  # abstract unix sockets and signals

_WHY: Final = {errno.ENOSYS: "the kernel has none", errno.EOPNOTSUPP: "switched off in the kernel (the lsm= parameter)"}


def version() -> int | str:
    """The version of the kernel's interface, or why there is none."""
    if sys.platform != "linux":
        return f"not on {sys.platform}"
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)))
    return found if found > 0 else _why(ctypes.get_errno())


def forbid_files(abi: int) -> str | None:
    """Close the file system to this thread and those it starts later, for good; open descriptors stay. Returns why not.

    `abi` from `version`; `no_new_privs` must be set.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    masks = [_mask(rights, abi) for rights in (_FILES, _NETWORK, _SCOPES)]
    attributes = struct.pack(f"={len(masks)}Q", *masks)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(ctypes.c_long(_CREATE_RULESET), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        return _why(ctypes.get_errno())
    try:
        outcome = libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0))
        return _why(ctypes.get_errno()) if outcome else None
    finally:
        os.close(ruleset)


def _mask(rights: tuple[tuple[int, int], ...], abi: int) -> int:
    return sum(bits for since, bits in rights if since <= abi)


def _why(number: int) -> str:
    return _WHY.get(number, os.strerror(number))
