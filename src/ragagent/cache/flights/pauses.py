"""After a failure nobody tries again for a while, where there is something else to serve.

Without this, an endpoint that takes ten seconds to fail would hold up every request for as long, although the old value
that they get in the end was there from the start.
"""

from __future__ import annotations

from collections.abc import Callable

PAUSE_SECONDS = 5.0
MAX_PAUSES = 10_000


class Pauses:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}  # in the order of their ends, since all are equally long

    def begin(self, name: str) -> None:
        self._until.pop(name, None)
        self._until[name] = self._clock() + PAUSE_SECONDS
        if len(self._until) > MAX_PAUSES:
            del self._until[next(iter(self._until))]

    def lasts(self, name: str) -> bool:
        until = self._until.get(name)
        if until is None:
            return False
        if until <= self._clock():
            del self._until[name]
            return False
        return True
