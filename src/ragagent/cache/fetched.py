"""What a caller asks of the cache, and what it gets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from ragagent.cache.flights.flight import Flight, Work
from ragagent.cache.keys import Key
from ragagent.cache.life import Life, Nothing

T = TypeVar("T")
Tier = Literal["l1", "l2", "miss", "stale", "bypass"]


@dataclass(frozen=True, slots=True)
class Wanted(Generic[T]):
    """A value, and how it is come by. `is_shared`: computed once for all processes."""

    key: Key
    work: Work[T | Nothing[T]]
    life: Life
    is_shared: bool
    has_pieces: bool


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """A value, which may be None, and the tier that it came from.

    "miss" was computed while the caller waited, here or in another process; "bypass" without looking. "stale" is past
    its time: it is being computed anew, or cannot be.
    """

    value: T
    tier: Tier


@dataclass(frozen=True, slots=True)
class Streaming(Generic[T]):
    """A value under way, of which there is one piece at least."""

    tier: Tier
    flight: Flight[Fetched[T]]

    @property
    def first(self) -> Any:
        return self.flight.pieces[0]

    def rest(self) -> AsyncGenerator[Any]:
        """Yield the pieces behind the first, as they come, until the computation has ended, however it did."""
        return self.flight.follow(1)

    async def value(self) -> T:
        """Return the whole. Raises what the computation raises."""
        return (await self.flight.result()).value


@dataclass(frozen=True, slots=True)
class Purged:
    """How many values went. `complete` is False when L2 could not be reached or not be searched to its end in time."""

    local: int
    remote: int
    complete: bool


def bare(value: T | Nothing[T]) -> T:
    return value.value if isinstance(value, Nothing) else value
