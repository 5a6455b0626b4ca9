"""One computation for everyone who asks the same question at the same moment, in this process.

Callers of one name share a task. It outlives any single caller (a client that hangs up must not fail the others), but
not all of them: when the last one is gone, nobody wants the answer, and the task is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ragagent.errors import Unavailable

T = TypeVar("T")


class _Flight:
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.waiters = 0


class Flights:
    """At most one task per name."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work` returns or raise what it raises, having started it only if no flight of `name` is up."""
        flight = self._flights.get(name) or self._launch(name, work)
        flight.waiters += 1
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        except asyncio.CancelledError:
            # Ours, or the flight's? Only the first may go up: it would end a request that nobody has cancelled.
            if flight.task.cancelled() and not _is_cancelled():
                raise Unavailable("The computation was interrupted; try again.") from None
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                # Off the board first: who asks from now on must not join a flight that is about to be cancelled.
                self._land(name, flight)
                flight.task.cancel()

    def forget(self, prefix: str = "") -> None:
        """Let no new caller join the flights of names that begin with `prefix`; those aboard still arrive."""
        for name in [name for name in self._flights if name.startswith(prefix)]:
            del self._flights[name]

    def _launch(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> _Flight:
        flight = self._flights[name] = _Flight(asyncio.create_task(work(), name="cache flight"))
        flight.task.add_done_callback(lambda _: self._on_done(name, flight))
        return flight

    def _on_done(self, name: str, flight: _Flight) -> None:
        self._land(name, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # Seen: the callers have it, or there are none, and asyncio need not complain.

    def _land(self, name: str, flight: _Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
