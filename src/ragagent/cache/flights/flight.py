"""One computation for everyone who asks the same question at the same moment, in this process.

Callers of one name share a task. It outlives any single caller (a client that hangs up must not fail the others), but
not all of them: when the last one is gone, here and in the processes that follow it (relay.py), and nobody has come
within a short grace, it is cancelled.

A computation may tell pieces before it has its result. They are recorded, so that whoever comes later hears all of
them from the first on, and at last live. It never waits for its hearers: what it tells is bounded, as an answer is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from ragagent.errors import Unavailable

T = TypeVar("T")
Tell = Callable[[Any], None]
Work = Callable[[Tell], Coroutine[Any, Any, T]]
Worked = Callable[["Teller"], Coroutine[Any, Any, T]]

GRACE_SECONDS = 0.5  # between two seats of one caller, too: one who has seen the beginning comes back for the rest


class Teller:
    """What a computation tells its pieces to. `told`: how many; `is_followed`: other processes hear them as well."""

    def __init__(self, on_piece: Tell) -> None:
        self._on_piece = on_piece
        self.told = 0
        self.is_followed = False

    def __call__(self, piece: Any) -> None:
        self.told += 1
        self._on_piece(piece)


class Flight(Generic[T]):
    """A computation under way, or just over: the pieces so far, and its result."""

    def __init__(self, work: Worked[T], grace_seconds: float, on_empty: Callable[[Flight[T]], None]) -> None:
        self.pieces: list[Any] = []
        self._seats = 0
        self._grace_seconds = grace_seconds
        self._on_empty = on_empty
        self._empty: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._teller = Teller(self._tell)
        self.task = asyncio.create_task(work(self._teller), name="cache flight")
        self.task.add_done_callback(self._on_done)

    async def result(self) -> T:
        """Return what the computation returns or raise what it raises. A cancelled caller takes nobody along."""
        with self.seat():
            try:
                return await asyncio.shield(self.task)
            except asyncio.CancelledError:
                # Ours, or the flight's? Only the first may go up: it would end a request that nobody has cancelled.
                if self.task.cancelled() and not _is_cancelled():
                    raise Unavailable("The computation was interrupted; try again.") from None
                raise

    async def begun(self) -> bool:
        """Return once there is a piece, True, or the computation has ended without any."""
        with self.seat():
            while not self.pieces and not self.task.done():
                await self._news.wait()
        return bool(self.pieces)

    async def follow(self, first: int = 0) -> AsyncGenerator[Any]:
        """Yield the pieces from number `first` on, until the computation ends, however it does: see `result`."""
        with self.seat():
            while True:
                while first < len(self.pieces):
                    first += 1
                    yield self.pieces[first - 1]
                if self.task.done():
                    return
                news = self._news
                # anyio does not cancel whoever is just being woken. Behind a computation that tells something in every
                # turn of the loop that would be always, and who has hung up would be listened for without end.
                await asyncio.sleep(0)
                if not news.is_set():
                    await news.wait()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """While anyone has a seat the flight goes on."""
        self._seats += 1
        if self._empty is not None:
            self._empty.cancel()
        try:
            yield
        finally:
            self._seats -= 1
            self._await_others()

    def keep(self) -> None:
        """Let it arrive, whether or not anyone has a seat."""
        self._seats += 1

    def _await_others(self) -> None:
        if not self._seats and not self.task.done():
            self._empty = asyncio.get_running_loop().call_later(self._grace_seconds, self._give_up)

    def _give_up(self) -> None:
        if self._teller.is_followed:
            self._await_others()
        else:
            self._on_empty(self)

    def _tell(self, piece: Any) -> None:
        self.pieces.append(piece)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _on_done(self, task: asyncio.Task[T]) -> None:
        self._wake()
        if self._empty is not None:
            self._empty.cancel()
        if not task.cancelled():
            task.exception()  # Seen: the callers have it, or there are none, and asyncio need not complain.


class Flights:
    """At most one flight per name."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._board: dict[str, Flight[Any]] = {}
        self._up: set[Flight[Any]] = set()

    def __len__(self) -> int:
        return len(self._board)

    def join(self, name: str, work: Worked[T]) -> Flight[T]:
        """Return the flight of `name`, started with `work` if there is none."""
        return self._board.get(name) or self._launch(name, work)

    def alone(self, work: Worked[T]) -> Flight[T]:
        """Start a flight that nobody else can join."""
        return self._start(work)

    def unattended(self, name: str, work: Worked[T]) -> None:
        """Start the flight of `name`, if there is none, for nobody: it ends when it has arrived."""
        if name not in self._board:
            self._launch(name, work).keep()

    def forget(self, prefix: str = "") -> None:
        """Let no new caller join the flights of names that begin with `prefix`; those aboard still arrive."""
        for name in [name for name in self._board if name.startswith(prefix)]:
            del self._board[name]

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        """Cancel what is still up."""
        for flight in self._up:
            flight.task.cancel()
        if self._up:
            await asyncio.wait({flight.task for flight in self._up}, timeout=timeout_seconds)

    def _launch(self, name: str, work: Worked[T]) -> Flight[T]:
        flight = self._board[name] = self._start(work)
        flight.task.add_done_callback(lambda _: self._land(name, flight))
        return flight

    def _start(self, work: Worked[T]) -> Flight[T]:
        flight = Flight(work, self._grace_seconds, self._abandon)
        self._up.add(flight)  # asyncio itself holds tasks weakly
        flight.task.add_done_callback(lambda _: self._up.discard(flight))
        return flight

    def _abandon(self, flight: Flight[Any]) -> None:
        # Off the board first: who asks from now on must not join a flight that is about to be cancelled.
        for name in [name for name, other in self._board.items() if other is flight]:
            self._land(name, flight)
        flight.task.cancel()

    def _land(self, name: str, flight: Flight[Any]) -> None:
        if self._board.get(name) is flight:
            del self._board[name]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
