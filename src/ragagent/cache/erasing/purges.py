"""Which purges there were: a value that was computed across one is served, and not kept.

A purge of one tenant leaves the others' fills alone.
"""

from __future__ import annotations

from collections import deque

REMEMBERED = 256


class Purges:
    def __init__(self) -> None:
        self.number = 0  # of the last purge
        self._prefixes: deque[str] = deque(maxlen=REMEMBERED)  # of the last ones, the newest at the end

    def note(self, prefix: str) -> None:
        self.number += 1
        self._prefixes.append(prefix)

    def covers(self, name: str, since: int) -> bool:
        """Return whether the key `name` was purged after purge number `since`."""
        missed = self.number - since
        if not missed:
            return False
        if missed > len(self._prefixes):
            return True  # More than we remember: it may have been.
        return any(name.startswith(self._prefixes[-age]) for age in range(1, missed + 1))
