"""What systemd does with SystemCallFilter= and MemoryDenyWriteExecute=: `confined.py CALLS COMMAND ...`.

CALLS is a file that names a system call per line. Everything else fails with EPERM, for the command and all that it
starts; so does memory that is both written and run.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
MASKED_EQUAL = 7
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000
# The argument, and the bit of it that must not be set. mmap is allowed without either of two.
GUARDED = {"mmap": (2, (PROT_WRITE, PROT_EXEC)), "mprotect": (2, (PROT_EXEC,)), "pkey_mprotect": (2, (PROT_EXEC,))}
GUARDED["shmat"] = (2, (SHM_EXEC,))


class Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def confine(calls: list[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # Of another architecture.
            continue
        argument, bits = GUARDED.get(call, (0, ()))
        for bit in bits:
            rule = (Comparison * 1)(Comparison(argument, MASKED_EQUAL, bit, 0))
            _check(seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, 1, rule))
        if not bits:
            _check(seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, 0, None))
    _check(ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(seccomp.seccomp_load(context))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(-result, os.strerror(-result))


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text().split())
    os.execv(sys.argv[2], sys.argv[2:])
