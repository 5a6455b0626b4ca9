"""The bell between workers and the indexer: "there is work", as one datagram.

It only shortens the indexer's sleep. The queue is in SQLite; a bell that nobody hears costs at most one poll interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 0.5


class Doorbell:
    """A worker's end: `ring()` never waits and never fails. `on_ring`: what hears it in the worker itself."""

    def __init__(self, path: Path, on_ring: Callable[[], None] = lambda: None) -> None:
        self._on_ring = on_ring
        self._directory = _directory(path)
        self._address = _address(self._directory, path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self) -> None:
        self._on_ring()
        # Nobody listens while the indexer is replaced, and a full queue means that it is about to wake anyway.
        with contextlib.suppress(OSError):
            self._socket.sendto(b"!", self._address)

    def close(self) -> None:
        self._socket.close()
        os.close(self._directory)


class Door:
    """The indexer's end. Whoever opens it last gets the bells: at a reload, the new indexer takes over."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        directory = _directory(path)
        try:
            self._socket.bind(_address(directory, path))
        finally:
            os.close(directory)
        os.chmod(path, 0o600)

    async def wait(self) -> None:
        """Return when the bell rings, or after the poll interval; several rings are one."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await loop.sock_recv(self._socket, 16)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(16)

    def close(self) -> None:
        # The path stays: it may be the successor's by now.
        self._socket.close()


def _directory(path: Path) -> int:
    return os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _address(directory: int, path: Path) -> str:
    """Return a name of `path` that fits into a socket address (107 bytes), however deep the data directory is."""
    return f"/proc/self/fd/{directory}/{path.name}"
