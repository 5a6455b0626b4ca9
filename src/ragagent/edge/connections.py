"""The open connections of one server, whichever lane they are on: what a drain counts, waits for and ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol


class Connection(Protocol):
    def dismiss(self, *, busy_too: bool) -> bool:
        """Send GOAWAY on HTTP/2, between streams or, with `busy_too`, in any case; whether it was sent."""

    async def finish(self) -> None:
        """Close if it is idle, else after the answer in progress."""

    def abort(self) -> None:
        """Cut it, and cancel what still works for it. A client that does not read would hold a mere close for ever."""


class Connections:
    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open.copy())  # Whoever acts on one may end it.

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._none.clear()

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    async def gone(self, seconds: float) -> None:
        """Return when there is none left, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()
