"""A value that no tier has, or that is past its time: computed here, or received, or replaced by the old one.

Old values stand in only where the computation fails because something that it needs does not answer (Unavailable, and
with it Upstream; a timeout). What is wrong with the request, or with us, is raised.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ragagent.cache import envelope
from ragagent.cache.envelope import Entry
from ragagent.cache.fetched import Fetched, Wanted, bare
from ragagent.cache.flights.flight import Tell, Teller
from ragagent.cache.flights.pauses import Pauses
from ragagent.cache.flights.relay import BROKEN_OFF, Computed, Received, Relay
from ragagent.cache.life import Nothing
from ragagent.cache.tiers import Tiers
from ragagent.errors import Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


class Computing:
    """`relay`: how the processes agree on who computes; None: there are no others."""

    def __init__(self, tiers: Tiers, relay: Relay | None, clock: Callable[[], float]) -> None:
        self._tiers = tiers
        self._relay = relay
        self._clock = clock
        self._pauses = Pauses(clock)

    def is_paused(self, wanted: Wanted[Any]) -> bool:
        """Whether computing it has failed a moment ago."""
        return self._pauses.lasts(wanted.key.rendered)

    async def anew(
        self, wanted: Wanted[T], old: Entry | None, tell: Teller, *, is_alone: bool = False, is_refresh: bool = False
    ) -> Fetched[T]:
        """Return the value, newer than `old`, which stands in where nothing newer can be had.

        `is_alone`: there is no Redis to agree over just now. `is_refresh`: nobody waits, so who fails must say so.
        """
        spare = old if old is not None and self._clock() < old.error_until else None
        if spare is not None and self.is_paused(wanted):
            return self._stand_in(wanted, spare)
        try:
            return await self._computed(wanted, old, tell, is_alone)
        except Exception as exc:
            if spare is not None or is_refresh:
                self._pauses.begin(wanted.key.rendered)
                # Only its class: its message may quote what was asked.
                log.warning("A cached %s could not be computed anew (%s).", wanted.key.kind, type(exc).__name__)
            # What has been told of a new value cannot be taken back for the sake of the old one.
            if spare is None or tell.told or not isinstance(exc, (Unavailable, TimeoutError)):
                raise
            return self._stand_in(wanted, spare)

    async def _computed(self, wanted: Wanted[T], old: Entry | None, tell: Teller, is_alone: bool) -> Fetched[T]:
        epoch = self._tiers.epoch
        seconds = 0.0

        async def work(tell: Tell) -> T | Nothing[T]:
            nonlocal seconds
            started = time.perf_counter()
            value = await wanted.work(tell)
            seconds = time.perf_counter() - started
            return value

        outcome: Computed[T | Nothing[T]] | Received
        # A refresh costs nobody a round trip, so it is agreed on whatever the value is.
        if self._relay is None or is_alone or not (wanted.is_shared or old is not None):
            outcome = Computed(await work(tell), None)
        else:
            known = b"" if old is None else old.plain[envelope.STAMP]
            name = wanted.key.rendered
            outcome = await self._relay.run(name, work, tell, known=known, wants_pieces=wanted.has_pieces)
        if isinstance(outcome, Received):
            entry = await self._tiers.take(wanted.key, outcome.blob, epoch)
            if entry is not None:
                self._tiers.note("none", wanted.key, "received")
                return Fetched(entry.value, "miss")
            if tell.told:
                raise Unavailable(BROKEN_OFF)
            outcome = Computed(await work(tell), None)
        self._tiers.store(wanted.key, outcome.value, wanted.life, epoch, delta=seconds, lease=outcome.lease)
        self._tiers.note("none", wanted.key, "computed")
        return Fetched(bare(outcome.value), "miss")

    def _stand_in(self, wanted: Wanted[Any], old: Entry) -> Fetched[Any]:
        self._tiers.note("none", wanted.key, "stale")
        return Fetched(old.value, "stale")
