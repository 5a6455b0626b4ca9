"""How long a value may be used: fresh, then stale while it is refreshed, then only where nothing newer can be had.

    |-------- fresh --------|---- stale ----|
                            |------------ on_error ------------|
      served                  served, and     served where the computation fails because something that it needs
                              refreshed       does not answer; else computed while the caller waits

A key holds the versions of all that its value depends on, so what is stale here is stale in time only, never in
content: a change of the documents leads to another key. That is why old values may be served at all.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from ragagent.config import Cache as Settings

T = TypeVar("T")

JITTER = 0.1  # values stored together must not expire together
MAX_SECONDS = 30 * 24 * 3600.0
_NEVER = 25  # times its computation before a value's end: -ln(random) is that large once in 10^11


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds. `stale` and `on_error` both begin where `fresh` ends. `negative` is the whole life of a `Nothing`."""

    fresh: float
    stale: float = 0.0
    on_error: float = 0.0
    negative: float = 0.0

    @classmethod
    def of(cls, settings: Settings, fresh: float) -> Self:
        """Return the life of what is `fresh` for so long, the rest as configured."""
        return cls(fresh, settings.stale_seconds, settings.stale_on_error_seconds, settings.negative_seconds)

    def drawn(self, *, is_nothing: bool = False) -> Life:
        """Return the life of one value: bounded, and a little shorter or longer than that of the others."""
        fresh = min(self.fresh, self.negative) if is_nothing else self.fresh
        fresh = min(fresh, MAX_SECONDS) * random.uniform(1 - JITTER, 1 + JITTER)
        if is_nothing:
            return Life(fresh)
        return Life(fresh, min(self.stale, MAX_SECONDS), min(self.on_error, MAX_SECONDS))


@dataclass(frozen=True, slots=True)
class Nothing(Generic[T]):
    """What a computation returns to say that there is nothing, and `value` is how that reads: kept for a short time.

    Never for what failed: an error is raised, and not kept.
    """

    value: T


def is_early(fresh_until: float, delta: float, now: float) -> bool:
    """Draw whether to refresh a value that is still fresh: XFetch, "Optimal Probabilistic Cache Stampede Prevention".

    The nearer its end, and the longer its computation (`delta` seconds), the likelier; so of many who ask, on whatever
    host, about one does it, and about one computation before the end.
    """
    left = fresh_until - now
    # The product decides nearly always, and costs a tenth of a logarithm.
    return left < delta * _NEVER and left < -delta * math.log(1.0 - random.random())
