"""A seccomp filter for the whole process: a short list of allowed system calls.

An allow-list, because a deny-list is out of date with every kernel that adds a call. A call that is not on it fails with
EPERM, so that a library which looks for a file, or tries something newer first, continues without. A call that only an
intruder would make kills the process (SIGSYS), which prevents a second try and leaves a line in the parent's log.
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

from aligner_svc.workers import sandbox_syscalls as calls

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_ALU|AND|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_SYSCALL: Final = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_PROT_EXEC: Final = 4


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_system_calls() -> str | None:
    """Apply the filter to every thread of this process, permanently. Returns why that failed, None if it did not.

    `no_new_privs` must be set, or the process be privileged. No thread can be started afterwards.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in calls.AUDIT_ARCHITECTURES or struct.calcsize("P") != 8:
        return f"not made for {sys.platform} on {machine}"
    code = compile_filter(machine, os.getpid())
    program = ctypes.byref(_Program(len(code) // 8, code))
    mode, flags, unused = (ctypes.c_ulong(value) for value in (_SET_MODE_FILTER, _ALL_THREADS, 0))
    outcome = calls.system_call(_SYSCALL[machine], mode, flags, program, unused)
    return f"thread {outcome} has a filter of its own" if outcome > 0 else calls.failure(outcome)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


_ALLOW: Final = _instruction(_RETURN, 0x7FFF0000)
_DENY: Final = _instruction(_RETURN, 0x00050000 | errno.EPERM)
_KILL: Final = _instruction(_RETURN, 0x80000000)


def compile_filter(machine: str, pid: int) -> bytes:
    """The filter for `machine` ("x86_64", "aarch64") and the process `pid`, as an array of struct sock_filter."""
    column = list(calls.AUDIT_ARCHITECTURES).index(machine)
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        # The same number is another call for a 32-bit program, and a 64-bit process may make 32-bit calls.
        _instruction(_EQUAL, calls.AUDIT_ARCHITECTURES[machine], 1, 0),
        _KILL,
        _instruction(_LOAD, _NUMBER),
    ]
    for table, verdict in ((calls.ALLOWED, _ALLOW), (calls.FATAL, _KILL)):
        for numbers in table.values():
            if numbers[column] >= 0:
                code += _when(numbers[column], [verdict])
    not_executable = [
        _instruction(_LOAD, _ARGUMENTS + 8 * 2),
        _instruction(_AND, _PROT_EXEC),
        _instruction(_EQUAL, 0, 0, 1),
        _ALLOW,
        _DENY,
    ]
    code += _when(calls.MMAP[column], not_executable)
    code += _when(calls.MPROTECT[column], not_executable)
    own_limits = [
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_EQUAL, 0, 0, 4),  # this process
        _instruction(_LOAD, _ARGUMENTS + 8),
        _instruction(_EQUAL, resource.RLIMIT_CPU, 1, 0),
        _instruction(_EQUAL, resource.RLIMIT_AS, 0, 1),
        _ALLOW,
        _DENY,
    ]
    code += _when(calls.PRLIMIT64[column], own_limits)
    own_threads = [_instruction(_LOAD, _ARGUMENTS), _instruction(_EQUAL, pid, 0, 1), _ALLOW, _KILL]  # for abort()
    code += _when(calls.TGKILL[column], own_threads)
    return b"".join((*code, _DENY))


def _when(number: int, then: list[bytes]) -> list[bytes]:
    """Run `then`, which must end in a return, for the call `number`; other calls jump over it."""
    return [_instruction(_EQUAL, number, 0, len(then)), *then]
