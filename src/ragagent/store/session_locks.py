"""One lock for each session among the processes of this host, in one file.

A lock is one byte of the file, far behind its end, so there is nothing to make and nothing to clean up. It belongs to
the open file that took it (an "open file description" lock): two requests of one process exclude each other as well,
and however a process dies, the kernel gives its locks back at once. A row in the database would need a time to expire.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from pathlib import Path

from ragagent.errors import Unavailable

_SPAN = 2**62  # of offsets; two sessions that share one by chance would only wait for each other


class SessionLock:
    """A lock that is held until `close`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SessionLocks:
    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def identity(self) -> str:
        """What all processes that share these locks have in common, and no other: this file, until the next boot."""
        descriptor = self._open()
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{status.st_dev}:{status.st_ino}"

    def take(self, session: str) -> SessionLock | None:
        """Return the session's lock, or None while another request holds it. Never waits."""
        descriptor = self._open()
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _one_byte(session))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as exc:
            os.close(descriptor)
            raise Unavailable(f"Sessions cannot be locked in '{self._path.name}': {exc.strerror}.") from exc
        return SessionLock(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise Unavailable(f"'{self._path.name}' cannot be opened: {exc.strerror}.") from exc


def _one_byte(session: str) -> bytes:
    offset = int.from_bytes(hashlib.sha256(session.encode()).digest()[:8], "big") % _SPAN
    # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for this kind).
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
