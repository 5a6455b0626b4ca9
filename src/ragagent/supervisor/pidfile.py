"""One supervisor per data directory: a locked file that names its process.

The lock is the truth and the kernel drops it with the process; the number inside is for people and scripts.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ragagent.errors import ConfigError


class Pidfile:
    """Held from `acquire` to `release`. A file left behind by kill -9 is not locked, and is taken over."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def adopt(cls, path: Path, fd: int) -> Pidfile:
        """Take over the lock that an earlier image of this process holds by `fd`."""
        os.set_inheritable(fd, False)
        return cls(path, fd)

    @classmethod
    def acquire(cls, path: Path) -> Pidfile:
        """Lock `path` and write our pid; raises ConfigError naming the holder when another supervisor has it."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                raise ConfigError(
                    f"Another supervisor (pid {holder}) already runs on data directory '{path.parent}'."
                ) from None
            if _is_still(path, fd):
                break
            os.close(fd)  # Its holder removed it between our open and our lock.
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        return cls(path, fd)

    def fileno(self) -> int:
        return self._fd

    def release(self) -> None:
        # Removed while the lock is held: nobody can have taken this very file in between.
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
