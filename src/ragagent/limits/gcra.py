"""The arithmetic of a rate: GCRA, a leaky bucket that is one number.

The number is the *level*, in microseconds: how long until the bucket is empty again and all of the burst is there. What
is taken raises the level by its cost, time lowers it, and a taking is refused that would lift it over the capacity. No
request is remembered, no window begins or ends, and nobody has to sweep: a level that has run out is no level at all.

Costs are whole microseconds, rounded down: exact up to thousands of units a minute, and to 2 % at a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MINUTE = 60_000_000
SECOND = 1_000_000
MAX_LEVEL = 24 * 60 * MINUTE  # a day: no debt lasts longer, and what says more was not written by us


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` units a minute, of which as many may come at once as `burst` microseconds bring, and one in any case."""

    limit: int
    burst: int = MINUTE

    @property
    def capacity(self) -> int:
        return max(self.burst, self.cost(1))

    @property
    def units_at_once(self) -> int:
        return self.units(self.capacity)

    def cost(self, units: int) -> int:
        return units * MINUTE // self.limit

    def units(self, microseconds: int) -> int:
        return microseconds * self.limit // MINUTE

    def remaining(self, level: int) -> int:
        """How many units could be taken now."""
        return max(self.units(self.capacity - level), 0)

    def wait(self, level: int, cost: int) -> int | None:
        """In how many microseconds `cost` could be taken; 0: now. None: never, it is more than the whole burst."""
        return None if cost > self.capacity else max(level + cost - self.capacity, 0)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request takes from one rate. `key` names the bucket; cost and capacity are microseconds."""

    key: str
    cost: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Seat:
    """One of `limit` places that can be held at a time. `token` names the holder: one for all seats of a request."""

    key: str
    limit: int
    token: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of demands and seats that were asked for together: all of them were taken, or none was.

    `levels` and `held` are what was found, before: by them anyone can tell which of them refused, and for how long.
    """

    is_allowed: bool
    levels: Sequence[int] = ()
    held: Sequence[int] = ()


def is_allowed(demands: Sequence[Demand], levels: Sequence[int], seats: Sequence[Seat], held: Sequence[int]) -> bool:
    """Whether everything that is asked for together may be taken."""
    return all(level + demand.cost <= demand.capacity for demand, level in zip(demands, levels, strict=True)) and all(
        count < seat.limit for seat, count in zip(seats, held, strict=True)
    )
