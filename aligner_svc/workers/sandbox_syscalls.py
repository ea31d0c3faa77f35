"""System calls by number, on the two machines the service is built for: what a sandboxed child may use, what kills it.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64) of Linux.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h by `os.uname().machine`; the numbers below are in this order, -1 where there is no such call."""

# What a loaded child uses: memory, locks, clocks, its own signals, and the descriptors it already has. Measured by tracing
# every accepted container and codec, plus what glibc uses for abort() and in older versions.
# sched_getaffinity is missing on purpose: libav then assumes one processor and starts no threads, which are forbidden.
ALLOWED: Final[dict[str, tuple[int, int]]] = {
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "read": (0, 63),
    "recvfrom": (45, 207),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "write": (1, 64),
}

# Allowed with certain arguments only, see sandbox_seccomp.
MMAP: Final = (9, 222)
MPROTECT: Final = (10, 226)
PRLIMIT64: Final = (302, 261)
TGKILL: Final = (234, 131)

# No audio decoder uses these, not even by accident or in a fallback: a call to one means that the child is taken over.
FATAL: Final[dict[str, tuple[int, int]]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "add_key": (248, 217),
    "bind": (49, 200),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "finit_module": (313, 273),
    "fork": (57, -1),
    "init_module": (175, 105),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "listen": (50, 201),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setns": (308, 268),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vfork": (58, -1),
}


def system_call(number: int, *arguments: Any) -> int:
    """Make the system call `number` with ctypes arguments; a negative result is an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    outcome = int(libc.syscall(ctypes.c_long(number), *arguments))
    return outcome if outcome >= 0 else -ctypes.get_errno()


def failure(outcome: int) -> str | None:
    """The error message for a result of `system_call`, None if it succeeded."""
    return os.strerror(-outcome) if outcome < 0 else None
