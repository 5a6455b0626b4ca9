"""How long to wait after a death: nothing after the first, then longer and longer, each slot for itself and all as one.

Each slot's own count does not see a fault that goes round: eight workers that die in turn would be eight fresh starts.
So the young deaths of all slots are counted as well, with one free for each slot: killing every worker at once, as an
operator or the kernel may do, costs no time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# A child that served this long was not broken from birth: its death starts a new count.
YOUNG_SECONDS = 10.0
FIRST_SECONDS = 0.25
MAX_SECONDS = 30.0
# Nobody has died for longer than the longest wait takes: whatever it was, it is over.
QUIET_SECONDS = 60.0


def delay(failures: int, jitter: random.Random) -> float:
    """Return seconds: 0 for the first failure, then 0.25, doubling up to 30, each with up to a quarter more."""
    if failures <= 1:
        return 0.0
    seconds = min(FIRST_SECONDS * 2.0 ** min(failures - 2, 16), MAX_SECONDS)
    return seconds * jitter.uniform(1.0, 1.25)


@dataclass(slots=True)
class YoungDeaths:
    """Over all slots, since the last time that it was quiet."""

    count: int = 0
    last_at: float = 0.0

    def add(self, now: float) -> None:
        self.count = self.count + 1 if now - self.last_at < QUIET_SECONDS else 1
        self.last_at = now

    def beyond(self, slots: int) -> int:
        """Return how many there were beyond one for each of `slots`."""
        return max(self.count - slots, 0)
