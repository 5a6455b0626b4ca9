"""Which generations a compaction takes: a log-structured merge, as Lucene's and LevelDB's.

A store is a few generations, oldest and largest first, and the delta. A merge makes one of the delta and of those
before it that are no larger than what is merged already, so sizes about double from each to the one before: a row is
built into log2(n / delta) generations in its life, and a search looks at about half as many. Simulated up to a million
rows in deltas of 4,096, with what graphs of each size were measured to cost (CPU seconds in all, the longest build's,
generations on average and at most):

    ratio 1       520    177    3.9    7
    ratio 2     1,110    420    3.2    6
    ratio 8     2,860    420    2.0    3
    one only   45,600    450    1      1

Four small graphs are searched about as fast as one large one: each needs a smaller `ef_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_DEAD_SHARE = 0.2  # of a tier's rows, and more than _DEAD_ROWS: worth a new generation
_DEAD_ROWS = 1000


class Tier(NamedTuple):
    """The rows of one generation, or of the delta, and how many of them are dead."""

    rows: int
    dead: int

    @property
    def is_spent(self) -> bool:
        return self.dead > max(_DEAD_ROWS, _DEAD_SHARE * self.rows)


def needs_merge(generations: Sequence[Tier], delta: Tier, max_delta_rows: int) -> bool:
    return delta.rows > max_delta_rows or any(tier.is_spent for tier in (*generations, delta))


def first_merged(generations: Sequence[Tier], delta: Tier, flat_rows: int) -> int:
    """Return the place of the first generation to merge: it, all behind it, and the delta become one.

    As long as the result stays below `flat_rows` it takes more: without a graph a merge is a copy.
    """
    first, merged = len(generations), delta.rows - delta.dead
    for place in reversed(range(len(generations))):
        tier = generations[place]
        living = tier.rows - tier.dead
        is_due = living <= merged or living + merged < flat_rows
        if is_due or any(older.is_spent for older in generations[: place + 1]):
            first, merged = place, merged + living
        else:
            break
    return first
