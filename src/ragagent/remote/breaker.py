"""Stop asking a server that does not answer, and notice by ourselves when it does again.

Closed: calls pass. FAILURES in a row open it, and so does a second in which half of at least SAMPLE calls fail: who
answers every other call is no help either. Open: no caller touches the server, so a hung one costs nobody anything; a
single background probe asks a few times a second, and its first success closes the breaker. There is no half-open
state in which a user's request would be the guinea pig. A breaker is born open, and then the probe asks at once: until
the server has answered there is no reason to make anyone wait for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

FAILURES = 3
SAMPLE = 10
WINDOW_SECONDS = 1.0
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 0.5  # also how long a healed server stays unused: with 5 s, recovery came 1.5 s late


class Breaker:
    """`probe` returns when the server answers and raises when not; `on_change(cause)` hears of every change once.

    `cause` is what opened the breaker, None when it closed.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], on_change: Callable[[Exception | None], None]) -> None:
        self._probe = probe
        self._on_change = on_change
        self._prober: asyncio.Task[None] | None = None
        self._is_open = True
        self._announced = False  # the first state is a change as well
        self._failures = 0  # in a row
        self._window_ends = 0.0
        self._calls = 0  # in this window, answered or not
        self._lost = 0

    @property
    def is_open(self) -> bool:
        return self._is_open

    def allows(self) -> bool:
        """Whether a call may pass. Where none may, asking is what keeps the probe running."""
        if not self._is_open:
            return True
        if self._prober is None or self._prober.done():
            self._prober = asyncio.create_task(self._until_answered(), name="breaker probe")
        return False

    def succeeded(self) -> None:
        """A call that passed was answered. It never closes the breaker: it may have been sent long ago."""
        self._failures = 0
        self._count()

    def failed(self, cause: Exception) -> None:
        """A call that passed was not answered."""
        self._failures += 1
        self._count()
        self._lost += 1
        is_half_lost = self._calls >= SAMPLE and self._lost * 2 >= self._calls
        if (self._failures >= FAILURES or is_half_lost) and not self._is_open:
            self._turn(is_open=True, cause=cause)
            self.allows()

    async def check(self) -> bool:
        """Ask once, now: close on an answer, open on none."""
        try:
            await self._probe()
        except Exception as exc:  # whatever it was, it was not an answer
            self._turn(is_open=True, cause=exc)
            return False
        self._turn(is_open=False)
        return True

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait([self._prober], timeout=timeout_seconds)

    async def _until_answered(self) -> None:
        # After failures the server gets a moment: one that answers PING and nothing else must not be asked in a circle.
        delay = FIRST_DELAY_SECONDS if self._calls else 0.0
        while True:
            # Jitter: the workers of a machine lose the server together, and should not come back together.
            await asyncio.sleep(delay * random.uniform(0.75, 1.0))
            if await self.check():
                return
            delay = min(delay * 2, MAX_DELAY_SECONDS) or FIRST_DELAY_SECONDS

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._calls = self._lost = 0
        self._calls += 1

    def _turn(self, *, is_open: bool, cause: Exception | None = None) -> None:
        if not is_open:
            self._failures = 0
            self._window_ends = 0.0
        if self._announced and is_open == self._is_open:
            return
        self._announced, self._is_open = True, is_open
        self._on_change(cause)
