"""A moment by which something must have happened, moved far more often than it is met."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expire` when the time is over. One timer finds out when it fires: to move the deadline moves no timer.

    `usual_seconds` is how far away it is, most of the time; a nearer one costs a timer of its own.
    """

    def __init__(self, expire: Callable[[], None], usual_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._expire = expire
        self._usual_seconds = usual_seconds
        self._due: float | None = None
        self._timer = self._loop.call_later(usual_seconds, self._tick)

    def set(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        if self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._tick)

    def clear(self) -> None:
        self._due = None

    def close(self) -> None:
        """End it. What it would have called is forgotten, as that knows this object in turn."""
        self._timer.cancel()
        del self._expire

    def _tick(self) -> None:
        now = self._loop.time()
        if self._due is not None and self._due <= now:
            self._due = None
            self._timer = self._loop.call_later(self._usual_seconds, self._tick)
            self._expire()
        else:
            self._timer = self._loop.call_at(self._due or now + self._usual_seconds, self._tick)
