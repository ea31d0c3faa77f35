"""A seccomp filter around the whole process: a short list of system calls, and nothing else.

An allow-list, because a deny-list is out of date with every kernel that adds a call. What is not on it fails with EPERM,
so that a library which looks for a file, or tries something newer first, goes on without; what only an intruder would
try kills the process (SIGSYS), which leaves no second try and a line in the parent's log.
https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from typing import Final

from aligner_svc.workers.sandbox_syscalls import ALLOWED, AUDIT_ARCHITECTURES, FATAL, MMAP, MPROTECT, PRLIMIT64, TGKILL

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_ALU|AND|K, BPF_RET|K
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_SYSCALL: Final = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_PROT_EXEC: Final = 4


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_system_calls() -> str | None:
    """Put the filter around every thread of this process, for good. Returns why it could not be, None if it is there.

    `no_new_privs` must be set, or the process be privileged. No thread can be started afterwards.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in AUDIT_ARCHITECTURES or struct.calcsize("P") != 8:
        return f"not made for {sys.platform} on {machine}"
    code = compile_filter(machine, os.getpid())
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    number = ctypes.c_long(_SYSCALL[machine])
    outcome = libc.syscall(
        number, ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_ALL_THREADS), ctypes.byref(program), ctypes.c_ulong(0)
    )
    if outcome > 0:
        return f"thread {outcome} has a filter of its own"
    return os.strerror(ctypes.get_errno()) if outcome else None


def compile_filter(machine: str, pid: int) -> bytes:
    """The filter for `machine` ("x86_64", "aarch64") and the process `pid`, as an array of struct sock_filter."""
    column = list(AUDIT_ARCHITECTURES).index(machine)
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        # The same number is another call for a 32-bit program, and a 64-bit process may make 32-bit calls.
        _instruction(_EQUAL, AUDIT_ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    for table, verdict in ((ALLOWED, _ALLOW), (FATAL, _KILL_PROCESS)):
        for numbers in table.values():
            if numbers[column] >= 0:
                code += _when(numbers[column], [_instruction(_RETURN, verdict)])
    executable = [
        _instruction(_LOAD, _ARGUMENTS + 8 * 2),
        _instruction(_AND, _PROT_EXEC),
        _instruction(_EQUAL, 0, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]
    code += _when(MMAP[column], executable)
    code += _when(MPROTECT[column], executable)
    own_limits = [
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_EQUAL, 0, 0, 4),  # this process
        _instruction(_LOAD, _ARGUMENTS + 8),
        _instruction(_EQUAL, resource.RLIMIT_CPU, 1, 0),
        _instruction(_EQUAL, resource.RLIMIT_AS, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]
    code += _when(PRLIMIT64[column], own_limits)
    own_threads = [  # abort() goes this way
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_EQUAL, pid, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _KILL_PROCESS),
    ]
    code += _when(TGKILL[column], own_threads)
    code.append(_instruction(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(code)


def _when(number: int, then: list[bytes]) -> list[bytes]:
    """`then` for the call `number`; the others jump over it. `then` must end in a return."""
    return [_instruction(_EQUAL, number, 0, len(then)), *then]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
