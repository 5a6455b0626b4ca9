"""How long look-ups take, by tier and kind of what is looked for.

Every one in L2 is timed. Of those in L1 one in SAMPLED is: to put a time into a histogram takes 8 µs, which is what a
whole hit in L1 takes.
"""

from __future__ import annotations

import itertools
import time

from ragagent import names, telemetry

SAMPLED = 64

_turns = itertools.count()


def begun() -> float:
    """Return the time now, for `ended`."""
    return time.perf_counter()


def begun_if_sampled() -> float:
    """Return the time now for one in SAMPLED calls, else 0, of which `ended` says nothing."""
    return 0.0 if next(_turns) % SAMPLED else time.perf_counter()


def ended(tier: str, kind: str, began: float) -> None:
    if began:
        taken = time.perf_counter() - began
        telemetry.record(names.CACHE_DURATION, taken, {names.CACHE_TIER: tier, names.CACHE_KIND: kind})
