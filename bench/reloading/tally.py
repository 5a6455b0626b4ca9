"""What the clients of one run have seen: answers, losses, and the longest time that a request heard nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


class Lost(Exception):
    """A request got no complete answer, and nothing had been said that would have kept it from being sent."""


@dataclass
class Tally:
    answered: Counter[str] = field(default_factory=Counter)  # by "h1 JSON", "h1 SSE", "h2 JSON", "h2 SSE"
    failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stalls: list[float] = field(default_factory=list)  # the worst of each request, in seconds
    workers: dict[int, int] = field(default_factory=dict)  # pid → the version that it answered with

    def requests(self, protocol: str = "") -> int:
        return _sum(self.answered, protocol) + self.failures(protocol)

    def failures(self, protocol: str = "") -> int:
        return _sum(self.failed, protocol)

    @property
    def worst_stall(self) -> float:
        return max(self.stalls, default=0.0)

    def stall(self, share: float) -> float:
        """Return what this share of the requests stayed below."""
        return sorted(self.stalls)[int(share * len(self.stalls))] if self.stalls else 0.0

    def lose(self, kind: str, reason: str) -> None:
        self.failed[kind] += 1
        self.reasons[f"{kind}: {reason}"] += 1


class Watch:
    """Times how long one request hears nothing."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._since = time.monotonic()

    def heard(self) -> None:
        now = time.monotonic()
        self.worst = max(self.worst, now - self._since)
        self._since = now


def _sum(counter: Counter[str], protocol: str) -> int:
    return sum(count for kind, count in counter.items() if kind.startswith(protocol))
