"""Whether the semantic cache may go on: a share of its answers is computed anew, and those that disagree are counted.

One disagreement of few is an accident. So their share counts by what it is at least, with 95 % confidence (Wilson's
lower bound): at a budget of 0.5 %, two of the first fifty are too many and one is not; of 500 it takes six. Over the
budget the cache is off for a while, and then on trial again.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable

from ragagent.config import Semantic as Settings

WINDOW = 2000  # samples: what was long ago says little of the documents and the model of today
CONFIDENCE = 1.645  # standard deviations: 95 %, one-sided

log = logging.getLogger(__name__)


class Trial:
    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._verdicts: deque[bool] = deque()  # True: it agreed
        self._wrong = 0  # Counted along: the exporter's thread asks for it, and must not walk the deque.
        self._off_until = 0.0
        self._is_off = False

    @property
    def is_on(self) -> bool:
        if self._is_off and self._clock() >= self._off_until:
            self._is_off, self._wrong = False, 0
            self._verdicts.clear()
            log.info("The semantic cache is on trial again.")
        return not self._is_off

    @property
    def samples(self) -> int:
        return len(self._verdicts)

    @property
    def false_share(self) -> float:
        """The share of samples that disagreed, 0..1."""
        return self._wrong / (self.samples or 1)

    @property
    def state(self) -> str:
        """ "ok", or why it is off: what /readyz says."""
        if self.is_on:
            return "ok"
        minutes = math.ceil((self._off_until - self._clock()) / 60)
        return f"off for {minutes} more minutes: {self._wrong} of {self.samples} sampled answers were wrong"

    def is_sampled(self) -> bool:
        """Draw whether the hit at hand is to be computed anew."""
        return self.is_on and random.random() < self._settings.shadow_share

    def note(self, *, agreed: bool) -> None:
        """Count one sample, and end the trial if that makes too many."""
        if not self.is_on:
            return
        self._verdicts.append(agreed)
        self._wrong += not agreed
        if self.samples > WINDOW:
            self._wrong -= not self._verdicts.popleft()
        if self.samples < self._settings.min_samples:
            return
        if at_least(self._wrong, self.samples) > self._settings.max_false_share:
            self._is_off = True
            self._off_until = self._clock() + self._settings.off_seconds
            log.warning(
                "The semantic cache is off for %.0f seconds: %d of its last %d sampled answers were wrong.",
                self._settings.off_seconds,
                self._wrong,
                self.samples,
            )


def at_least(wrong: int, samples: int) -> float:
    """Return what the true share of `wrong` is at least, with 95 % confidence: Wilson's lower bound."""
    if not samples:
        return 0.0
    share, squared = wrong / samples, CONFIDENCE**2
    spread = CONFIDENCE * math.sqrt(share * (1 - share) / samples + squared / (4 * samples**2))
    return max((share + squared / (2 * samples) - spread) / (1 + squared / samples), 0.0)
