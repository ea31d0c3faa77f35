"""Landlock with an empty set of rules: no opening or running of files, no TCP, no signals to processes outside.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

from aligner_svc.workers.sandbox_syscalls import failure, system_call

# The same numbers on every machine: they were added after the tables were unified.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION: Final = 1

# Rights by the version of the interface that added them; a kernel refuses those it does not know.
_FILES: Final = ((1, 0x1FFF), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NETWORK: Final = ((4, 0b11),)  # bind and connect, TCP
_SCOPES: Final = ((6, 0b11),)  # abstract unix sockets and signals

_REASONS: Final = {errno.ENOSYS: "the kernel has none", errno.EOPNOTSUPP: "switched off in the kernel (the lsm= parameter)"}


def version() -> int | str:
    """The version of the kernel's interface, or why there is none."""
    if sys.platform != "linux":
        return f"not on {sys.platform}"
    found = system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return found if found > 0 else _REASONS.get(-found, os.strerror(-found))


def forbid_files(abi: int) -> str | None:
    """Close the file system to this thread and those it starts later, permanently; open descriptors stay. Returns why it failed.

    `abi` from `version`; `no_new_privs` must be set.
    """
    masks = [sum(bits for since, bits in rights if since <= abi) for rights in (_FILES, _NETWORK, _SCOPES)]
    attributes = struct.pack(f"={len(masks)}Q", *masks)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = system_call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        return failure(ruleset)
    try:
        return failure(system_call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0)))
    finally:
        os.close(ruleset)
