"""Both tiers as one: look in L1, then in L2, then compute once for everyone who is waiting.

A hit in L1 is a plain look-up, before any await. Everything slower happens in the one flight of its key (flights/),
so fifty callers cost one GET and one computation (computing.py); where it pays, one over all processes that share the
Redis. How long a value lives, and what an old one is good for, is life.py's to say.

Values are plain structures (dict, list, str, bytes, numbers, None). Tuples come back as lists; callers of one flight
share one object: do not change it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from ragagent.cache import envelope, keys
from ragagent.cache.envelope import Entry
from ragagent.cache.erasing import filing
from ragagent.cache.erasing.tags import Tags
from ragagent.cache.fetched import Fetched, Purged, Streaming, Wanted, bare
from ragagent.cache.flights.computing import Computing
from ragagent.cache.flights.flight import Flight, Flights, Tell, Teller, Work
from ragagent.cache.flights.relay import Relay
from ragagent.cache.keys import Key
from ragagent.cache.life import Life, Nothing, is_early
from ragagent.cache.local import LocalCache
from ragagent.cache.tiers import CacheStats, OnEvent, Tiers
from ragagent.errors import Invalid
from ragagent.remote.connection import NoReply, Remote
from ragagent.remote.lease import Leases
from ragagent.types import Erasure

T = TypeVar("T")


class TieredCache:
    """`on_event(tier, kind, outcome)` hears of every look-up: tier l1 or l2, outcome hit, stale, miss or error; and of
    what no tier had, tier none: computed, received (another process computed it) or stale (it could not be computed).

    Not `enabled`: nothing is looked up or stored. The tiers are opened and closed by who made them.
    """

    def __init__(
        self,
        local: LocalCache,
        remote: Remote | None = None,
        enabled: bool = True,
        *,
        on_event: OnEvent | None = None,
        clock: Callable[[], float] = time.time,
        relay: Relay | None = None,
    ) -> None:
        self.enabled = enabled
        self._remote = remote
        self._clock = clock
        self._flights = Flights()
        self._tiers = Tiers(local, remote, on_event, clock)
        if relay is None and remote is not None:
            relay = Relay(Leases(remote, envelope.STAMP))
        self._computing = Computing(self._tiers, relay, clock)

    @property
    def tags(self) -> Tags:
        """What L1's values were read from, and what of that has been erased."""
        return self._tiers.tags

    @property
    def epoch(self) -> int:
        """Moves with every purge. Who computes outside of `fetch` reads it first and hands it to `put`."""
        return self._tiers.epoch

    async def fetch(
        self,
        key: Key,
        compute: Callable[[], Awaitable[T | Nothing[T]]],
        life: Life,
        *,
        shared: bool = False,
    ) -> Fetched[T]:
        """Return the value of `key`, computed if no tier has it and then kept for its `life`; fresh 0: not kept.

        `shared`: one computation for all processes. It costs a miss a round trip to Redis, and pays where computing
        takes longer than that or is paid for.
        Raises what `compute` raises, to everyone who waits for this key; a failure is not kept. Where there is an old
        value, and it fails because something does not answer, the old one is returned.
        """
        if not self.enabled or life.fresh <= 0:
            return Fetched(bare(await compute()), "bypass")

        async def work(tell: Tell) -> T | Nothing[T]:
            return await compute()

        found = self._board(Wanted(key, work, life, shared, has_pieces=False))
        return await found.result() if isinstance(found, Flight) else found

    async def stream(self, key: Key, work: Work[T | Nothing[T]], life: Life) -> Fetched[T] | Streaming[T]:
        """Return the value of `key`, or what is to be heard of it while it is computed, once for all processes.

        `work` is handed a function to tell its pieces to, which are plain structures, and returns the whole. All who
        ask meanwhile hear the same, from the first piece on. Raises as `fetch` does, if there is no piece before that.
        """
        if not self.enabled or life.fresh <= 0:

            async def bypass(tell: Tell) -> Fetched[T]:
                return Fetched(bare(await work(tell)), "bypass")

            flight = self._flights.alone(bypass)
            return Streaming("bypass", flight) if await flight.begun() else await flight.result()
        found = self._board(Wanted(key, work, life, is_shared=True, has_pieces=True))
        if isinstance(found, Fetched):
            return found
        return Streaming("miss", found) if await found.begun() else await found.result()

    def holds(self, key: Key) -> bool:
        """Whether L1 has something of `key`, old perhaps. No look-up: it is not counted, and costs next to nothing."""
        return self.enabled and self._tiers.holds(key)

    async def get(self, key: Key) -> Fetched[Any] | None:
        """Return what the tiers hold of `key`, if it may be served while nothing newer is computed; None: nothing."""
        if not self.enabled:
            return None
        entry = self._tiers.peek(key)
        found = None if entry is None else self._usable("l1", key, entry)
        if found is None:
            asked = await self._tiers.ask(key)
            found = self._usable("l2", key, asked) if isinstance(asked, Entry) else None
        return found

    async def put(self, key: Key, value: Any, life: Life, *, epoch: int | None = None) -> None:
        """Keep `value` for its `life`, unless it was purged since `epoch`, or what it was read from erased."""
        if self.enabled and life.fresh > 0:
            self._tiers.store(key, value, life, self.epoch if epoch is None else epoch)

    async def purge(self, prefix: str | None = None) -> Purged:
        """Drop what this process and L2 hold under `prefix` (see keys.tenant_prefix); None: all of the cache.

        Raises Invalid: the prefix is not the cache's. Sessions and limits live in the same Redis.
        """
        prefix = prefix or keys.PREFIX
        if not prefix.startswith(keys.PREFIX):
            raise Invalid(f"Cache prefix '{prefix}' must begin with '{keys.PREFIX}'.", param="prefix")
        local = self.forget(prefix)
        if self._remote is None or self._remote.state == "off":
            return Purged(local, 0, complete=True)
        await self.drain()  # A write still under way would land behind the purge.
        # Leases lie under the prefix as well: what is being computed anywhere is served, and not kept.
        unlinked, complete = await self._remote.purge(prefix)
        # Once more: while L2 was being cleared, look-ups could still carry its values back into L1.
        return Purged(local + self.forget(prefix), unlinked, complete)

    def forget(self, prefix: str = keys.PREFIX) -> int:
        """Let nothing that was known until now come back under `prefix`; return how much L1 held."""
        self._flights.forget(prefix)
        return self._tiers.forget(prefix)

    def erase(self, erasure: Erasure) -> list[str]:
        """Drop from L1 what was read from what is erased, and let none of it in again; return the keys."""
        return self._tiers.erase(erasure)

    async def erase_remote(self, erasure: Erasure) -> bool:
        """Drop the same from L2; return whether Redis has confirmed it."""
        return self._remote is not None and await filing.erase(self._remote, erasure)

    async def drain(self) -> None:
        """Return when the writes that are under way have ended."""
        await self._tiers.drain()

    def stats(self) -> CacheStats:
        return self._tiers.stats(len(self._flights))

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        """End what nobody waits for any more, and let writes end. Close the tiers after this."""
        await self._flights.aclose(timeout_seconds)
        await self._tiers.drain(timeout_seconds)

    def _board(self, wanted: Wanted[T]) -> Fetched[T] | Flight[Fetched[T]]:
        """Return what L1 has, else the flight that looks further."""
        entry = self._tiers.peek(wanted.key)
        if entry is None:
            self._tiers.note("l1", wanted.key, "miss")
        else:
            found = self._usable("l1", wanted.key, entry)
            if found is not None:
                if self._is_due(entry):
                    self._refresh(wanted, entry)
                return found
        return self._flights.join(wanted.key.rendered, lambda tell: self._fly(wanted, entry, tell))

    async def _fly(self, wanted: Wanted[T], old: Entry | None, tell: Teller) -> Fetched[T]:
        asked = await self._tiers.ask(wanted.key)
        if isinstance(asked, Entry):
            found = self._usable("l2", wanted.key, asked)
            if found is not None:
                if self._is_due(asked):
                    # This flight has landed but for its result: the refresh takes its place on the board.
                    self._flights.forget(wanted.key.rendered)
                    self._refresh(wanted, asked)
                return found
            old = asked
        return await self._computing.anew(wanted, old, tell, is_alone=isinstance(asked, NoReply))

    def _usable(self, tier: Literal["l1", "l2"], key: Key, entry: Entry) -> Fetched[Any] | None:
        """Return the value that a tier holds, unless its time is over."""
        now = self._clock()
        if now < entry.fresh_until:
            self._tiers.note(tier, key, "hit")
            return Fetched(entry.value, tier)
        if now < entry.stale_until:
            self._tiers.note(tier, key, "stale")
            return Fetched(entry.value, "stale")
        self._tiers.note(tier, key, "miss")
        return None

    def _is_due(self, entry: Entry) -> bool:
        """Whether to compute the value anew behind its serving. Without a time for that it is left to expire."""
        return entry.stale_until > entry.fresh_until and is_early(entry.fresh_until, entry.delta, self._clock())

    def _refresh(self, wanted: Wanted[Any], old: Entry) -> None:
        """Compute it anew behind the caller's back: once in this process, and once in all where there is a Redis."""
        if not self._computing.is_paused(wanted):
            self._flights.unattended(
                wanted.key.rendered, lambda tell: self._computing.anew(wanted, old, tell, is_refresh=True)
            )
