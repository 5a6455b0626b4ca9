"""The Linux process controls that the tree rests on, through ctypes because the standard library lacks them."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_PDEATHSIG = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends, as init would be."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends. False: `parent` is not the parent (any more)."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    # Asked afterwards, because a parent that died before the call will never send the signal.
    return os.getppid() == parent


def name_process(name: str) -> None:
    """Set what `ps -o comm` and `top` show of this process; at most 15 bytes of it."""
    _prctl(_SET_NAME, ctypes.c_char_p(name.encode()))


def _prctl(option: int, value: int | ctypes.c_char_p) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
