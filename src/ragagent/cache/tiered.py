"""Both tiers as one: look in L1, then in L2, then compute once for everyone who is waiting.

A hit in L1 is a plain look-up, before any await. Everything slower happens in the one flight of its key, so fifty
callers cost one GET and one computation. An answer never waits for its own storing: writes to L2 run behind it, a few
at a time, and are dropped when there are too many.

Values are plain structures (dict, list, str, bytes, numbers, None). Tuples come back as lists; callers of one flight
share one object: do not change it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from ragagent.cache import envelope, keys
from ragagent.cache.envelope import Refused
from ragagent.cache.flight import Flights
from ragagent.cache.keys import Key
from ragagent.cache.local import ByteLRU, LocalStats
from ragagent.errors import Invalid
from ragagent.remote.connection import NoReply, Remote, RemoteStats

T = TypeVar("T")
Tier = Literal["l1", "l2", "miss", "bypass"]
OnEvent = Callable[[str, str, str], None]

JITTER = 0.1  # values stored together must not expire together
MAX_TTL_SECONDS = 30 * 24 * 3600.0
MAX_WRITES = 64


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """A value, which may be None, and the tier that it came from: "miss" was computed, "bypass" without looking."""

    value: T
    tier: Tier


@dataclass(frozen=True, slots=True)
class Purged:
    """How many values went. `complete` is False when L2 could not be reached or not be searched to its end in time."""

    local: int
    remote: int
    complete: bool


@dataclass(frozen=True, slots=True)
class TierStats:
    hits: int
    misses: int
    errors: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start of this process. `refused` says why stored or storable bytes were no value."""

    l1: TierStats
    l2: TierStats
    local: LocalStats
    remote: RemoteStats | None
    flights: int
    refused: Mapping[str, int]


class TieredCache:
    """`on_event(tier, kind, outcome)` hears of every look-up: tier l1 or l2; outcome hit, miss or error.

    Not `enabled`: nothing is looked up or stored. The tiers are opened and closed by who made them.
    """

    def __init__(
        self,
        local: ByteLRU,
        remote: Remote | None = None,
        enabled: bool = True,
        *,
        on_event: OnEvent | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = enabled
        self._local = local
        self._remote = remote
        self._on_event = on_event
        self._clock = clock
        self._epoch = 0
        self._flights = Flights()
        self._writes: set[asyncio.Task[None]] = set()
        self._lookups: Counter[tuple[str, str]] = Counter()  # (tier, outcome)
        self._refused: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """Moves with every purge. Who computes outside of `fetch` reads it first and hands it to `put`."""
        return self._epoch

    async def fetch(self, key: Key, compute: Callable[[], Awaitable[T]], *, ttl: float) -> Fetched[T]:
        """Return the value of `key`, computed if no tier has it and then kept for about `ttl` seconds; 0: not kept.

        Raises what `compute` raises, to everyone who waits for this key; a failure is not kept.
        """
        if not self.enabled or ttl <= 0:
            return Fetched(await compute(), "bypass")
        found = self._peek(key)
        if found is not None:
            return found
        return await self._flights.join(key.rendered, lambda: self._fly(key, compute, ttl))

    async def get(self, key: Key) -> Fetched[Any] | None:
        """Return what the tiers hold of `key`; None: nothing."""
        if not self.enabled:
            return None
        return self._peek(key) or await self._ask_remote(key)

    async def put(self, key: Key, value: Any, ttl: float, *, epoch: int | None = None) -> None:
        """Keep `value` for about `ttl` seconds, unless there was a purge since `epoch`."""
        if self.enabled and ttl > 0:
            self._store(key, value, ttl, self._epoch if epoch is None else epoch)

    async def purge(self, prefix: str | None = None) -> Purged:
        """Drop what this process and L2 hold under `prefix` (see keys.tenant_prefix); None: all of the cache.

        Raises Invalid: the prefix is not the cache's. Sessions and limits live in the same Redis.
        """
        prefix = prefix or keys.PREFIX
        if not prefix.startswith(keys.PREFIX):
            raise Invalid(f"Cache prefix '{prefix}' must begin with '{keys.PREFIX}'.", param="prefix")
        local = self._forget(prefix)
        if self._remote is None or self._remote.state == "off":
            return Purged(local, 0, complete=True)
        await self.drain()  # A write still under way would land behind the purge.
        unlinked, complete = await self._remote.purge(prefix)
        # Once more: while L2 was being cleared, look-ups could still carry its values back into L1.
        return Purged(local + self._forget(prefix), unlinked, complete)

    async def drain(self) -> None:
        """Return when the writes that are under way have ended."""
        if self._writes:
            await asyncio.wait(set(self._writes))

    def stats(self) -> CacheStats:
        return CacheStats(
            l1=self._tier("l1"),
            l2=self._tier("l2"),
            local=self._local.stats(),
            remote=self._remote.stats() if self._remote is not None else None,
            flights=len(self._flights),
            refused=dict(self._refused),
        )

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        """Let writes end. Close the tiers after this."""
        if self._writes:
            _, late = await asyncio.wait(set(self._writes), timeout=timeout_seconds)
            for write in late:
                write.cancel()

    async def _fly(self, key: Key, compute: Callable[[], Awaitable[T]], ttl: float) -> Fetched[T]:
        epoch = self._epoch
        found = await self._ask_remote(key)
        if found is not None:
            return found
        value = await compute()
        self._store(key, value, ttl, epoch)
        return Fetched(value, "miss")

    def _peek(self, key: Key) -> Fetched[Any] | None:
        plain = self._local.peek(key.rendered)
        if plain is None:
            self._note("l1", key, "miss")
            return None
        self._note("l1", key, "hit")
        return Fetched(envelope.trusted(plain).value, "l1")

    async def _ask_remote(self, key: Key) -> Fetched[Any] | None:
        if self._remote is None or self._remote.state == "off":
            return None
        epoch = self._epoch
        blob = await self._remote.get(key.rendered)
        if blob is None or isinstance(blob, NoReply):
            self._note("l2", key, "miss" if blob is None else "error")
            return None
        entry = envelope.decode(key.rendered, blob, self._clock())
        if isinstance(entry, Refused):
            await self._discard(key, entry)
            return None
        self._note("l2", key, "hit")
        if epoch == self._epoch:  # Else it was purged while the reply was on its way: serve it this once.
            self._local.put(key.rendered, entry.plain, entry.expires - self._clock())
        return Fetched(entry.value, "l2")

    async def _discard(self, key: Key, reason: Refused) -> None:
        self._refused[reason] += 1
        self._note("l2", key, "miss" if reason is Refused.EXPIRED else "error")
        if self._remote is not None:
            # Awaited: a later write of the same key must not be overtaken by this.
            await self._remote.unlink(key.rendered)

    def _store(self, key: Key, value: Any, ttl: float, epoch: int) -> None:
        if epoch != self._epoch:
            return  # Computed from what was there before the purge.
        lifetime = min(ttl, MAX_TTL_SECONDS) * random.uniform(1 - JITTER, 1 + JITTER)
        plain = envelope.encode(key.rendered, value, lifetime, self._clock())
        if plain is None:
            self._refused["too_large"] += 1
            return
        self._local.put(key.rendered, plain, lifetime)
        if self._remote is not None and self._remote.is_reachable:
            self._write(self._remote, key.rendered, plain, lifetime)

    def _write(self, remote: Remote, name: str, plain: bytes, ttl: float) -> None:
        if len(self._writes) >= MAX_WRITES:
            self._refused["too_many_writes"] += 1
            return
        task = asyncio.create_task(_write(remote, name, plain, ttl), name="cache write")
        self._writes.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self._writes.discard)

    def _forget(self, prefix: str) -> int:
        """Let nothing that was known until now come back under `prefix`; return how much L1 held."""
        self._epoch += 1
        self._flights.forget(prefix)
        return self._local.purge(prefix)

    def _tier(self, tier: str) -> TierStats:
        return TierStats(*(self._lookups[tier, outcome] for outcome in ("hit", "miss", "error")))

    def _note(self, tier: str, key: Key, outcome: str) -> None:
        self._lookups[tier, outcome] += 1
        if self._on_event is not None:
            self._on_event(tier, key.kind, outcome)


async def _write(remote: Remote, name: str, plain: bytes, ttl: float) -> None:
    await remote.set(name, envelope.compressed(plain), ttl)
