"""The locks between processes, all of them portalocker's flock: `WRITER` of a root, `LOCK` of a generation.

A reader holds a generation's lock shared for as long as it maps it; the writer deletes only what it gets exclusively
at once. Neither ever waits for the other: who is refused reads the manifest again, or tries at the next prune. A lock
dies with its process, however that ends. It belongs to the open file: a child forked without exec would keep it alive,
so it is taken after the fork and closed on exec.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import portalocker

from ragagent.errors import Conflict

_POLL_SECONDS = 0.05  # flock can wait for ever or not at all; a bounded wait has to ask again.


class Lock:
    """One lock held, until `close`. `identity` tells this very file from any later one of the same name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.identity = _identity(os.fstat(descriptor))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # Closing the last descriptor of an open file gives up its lock.
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def writer(root: Path, *, wait_seconds: float = 0.0, waiting: Callable[[], None] | None = None) -> Lock:
    """Hold `root/WRITER` exclusively: the right to change anything under `root`.

    Waits up to `wait_seconds` for another indexer to leave, calling `waiting` (to beat, or to raise) at each look.
    Raises Conflict when it did not.
    """
    root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    while (lock := _take(root / "WRITER", portalocker.LockFlags.EXCLUSIVE, create=True)) is None:
        if time.monotonic() >= deadline:
            raise Conflict(f"The index '{root.name}' has a writer already: another indexer is running.")
        if waiting is not None:
            waiting()
        time.sleep(_POLL_SECONDS)
    return lock


def shared(path: Path) -> Lock | None:
    """Return the lock held shared, or None when its file is gone or about to go."""
    return _take(path, portalocker.LockFlags.SHARED)


def exclusive(path: Path) -> Lock | None:
    """Return the lock held exclusively, or None when the file is gone or anyone else holds it."""
    return _take(path, portalocker.LockFlags.EXCLUSIVE)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what a lock taken on `path` now would have as identity; None when there is no such file."""
    try:
        return _identity(os.stat(path))
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _take(path: Path, how: portalocker.LockFlags, *, create: bool = False) -> Lock | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC if create else os.O_RDONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        return None
    try:
        portalocker.lock(descriptor, how | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    lock = Lock(descriptor)
    if identity(path) != lock.identity:  # Deleted between open and lock: we hold a file that nobody else can find.
        lock.close()
        return None
    return lock
