"""What both tiers hold: look it up, keep it, forget it. Whether to compute is not decided here.

An answer never waits for its own storing: writes to L2 run behind it, a few at a time, and are dropped when there are
too many. A store that answers nonsense is a miss, and the nonsense is deleted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from ragagent.cache import envelope, timing
from ragagent.cache.envelope import Entry, Refused
from ragagent.cache.erasing import filing
from ragagent.cache.erasing.purges import Purges
from ragagent.cache.erasing.tags import Tags
from ragagent.cache.fetched import bare
from ragagent.cache.flights import relay
from ragagent.cache.keys import Key
from ragagent.cache.life import Life, Nothing
from ragagent.cache.local import LocalCache, LocalStats
from ragagent.remote.connection import NoReply, Remote, RemoteStats
from ragagent.remote.lease import Committed, Lease
from ragagent.types import Erasure

OnEvent = Callable[[str, str, str], None]

MAX_WRITES = 64
AGAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class TierStats:
    hits: int
    stale: int
    misses: int
    errors: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start of this process. `computed` says how values were come by that no tier had, `refused` why
    stored or storable bytes were no value.
    """

    l1: TierStats
    l2: TierStats
    local: LocalStats
    remote: RemoteStats | None
    flights: int
    computed: Mapping[str, int]
    refused: Mapping[str, int]


class Tiers:
    def __init__(
        self,
        local: LocalCache,
        remote: Remote | None,
        on_event: OnEvent | None,
        clock: Callable[[], float],
    ) -> None:
        self._local = local
        self._remote = remote
        self.tags = Tags(local.__contains__)
        self._purges = Purges()
        self._on_event = on_event
        self._clock = clock
        self._writes: set[asyncio.Task[None]] = set()
        self._outcomes: Counter[tuple[str, str]] = Counter()  # (tier, outcome)
        self._refused: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """Moves with every purge."""
        return self._purges.number

    def holds(self, key: Key) -> bool:
        return key.rendered in self._local

    def peek(self, key: Key) -> Entry | None:
        """Return what L1 holds."""
        began = timing.begun_if_sampled()
        plain = self._local.peek(key.rendered)
        if plain is None:
            return None
        entry = envelope.trusted(plain)
        timing.ended("l1", key.kind, began)
        return entry

    async def ask(self, key: Key) -> Entry | NoReply | None:
        """Return what L2 holds, which L1 then holds as well. NoReply: it does not answer."""
        if self._remote is None or self._remote.state == "off":
            return None
        epoch = self.epoch
        began = timing.begun()
        blob = await self._remote.get(key.rendered)
        timing.ended("l2", key.kind, began)
        if blob is None or isinstance(blob, NoReply):
            self.note("l2", key, "miss" if blob is None else "error")
            return blob
        return await self.take(key, blob, epoch)

    async def take(self, key: Key, blob: bytes, epoch: int) -> Entry | None:
        """Return the entry of bytes that L2 held under `key` when the epoch was that; None: they are no value."""
        entry = envelope.decode(key.rendered, blob, self._clock())
        if isinstance(entry, Refused):
            await self._discard(key, entry)
            return None
        if self._may_keep(key, epoch):  # Else it has gone while the reply was on its way: serve it this once.
            self._hold(key, entry)
        return entry

    def store(
        self,
        key: Key,
        value: Any,
        life: Life,
        epoch: int,
        *,
        delta: float = 0.0,
        lease: Lease | None = None,
    ) -> None:
        """Keep `value` in both tiers, unless it was purged since `epoch`, or erased. A `lease` ends either way.

        `delta`: how many seconds the computation took.
        """
        entry = self._entry(key, value, life, delta)
        is_kept = entry is not None and self._may_keep(key, epoch)
        if entry is not None and is_kept:
            self._hold(key, entry)
        if lease is not None:
            self._behind(self._settle(key, entry, lease, is_kept=is_kept))
        elif entry is not None and is_kept and self._remote is not None and self._remote.is_reachable:
            if len(self._writes) < MAX_WRITES:
                self._behind(self._write(self._remote, key, entry))
            else:
                self._refused["too_many_writes"] += 1

    def forget(self, prefix: str) -> int:
        """Let nothing that was known until now come back under `prefix`; return how much L1 held."""
        self._purges.note(prefix)
        return self._local.purge(prefix)

    def erase(self, erasure: Erasure) -> list[str]:
        """Drop from L1 what was read from what is erased, and let none of it in again; return the keys."""
        names = self.tags.erase(erasure)
        for name in names:
            self._local.drop(name)
        return names

    def note(self, tier: str, key: Key, outcome: str) -> None:
        """Count what a look-up came to: tier l1 or l2; none: how a value was come by that neither had."""
        self._outcomes[tier, outcome] += 1
        if self._on_event is not None:
            self._on_event(tier, key.kind, outcome)

    async def drain(self, timeout_seconds: float | None = None) -> None:
        """Return when the writes that are under way have ended; after `timeout_seconds` they are cancelled."""
        if self._writes:
            _, late = await asyncio.wait(set(self._writes), timeout=timeout_seconds)
            for write in late:
                write.cancel()

    def stats(self, flights: int) -> CacheStats:
        return CacheStats(
            l1=self._tier("l1"),
            l2=self._tier("l2"),
            local=self._local.stats(),
            remote=self._remote.stats() if self._remote is not None else None,
            flights=flights,
            computed={outcome: count for (tier, outcome), count in self._outcomes.items() if tier == "none"},
            refused=dict(self._refused),
        )

    def _entry(self, key: Key, value: Any, life: Life, delta: float) -> Entry | None:
        is_nothing = isinstance(value, Nothing)
        drawn = life.drawn(is_nothing=is_nothing)
        if drawn.fresh <= 0:
            return None
        plain = envelope.encode(key.rendered, bare(value), drawn, self._clock(), delta=delta, is_nothing=is_nothing)
        if plain is None:
            self._refused["too_large"] += 1
            return None
        return envelope.trusted(plain)

    def _may_keep(self, key: Key, epoch: int) -> bool:
        """Return whether a value that was on its way since `epoch` may be kept."""
        return not self._purges.covers(key.rendered, epoch) and not self.tags.is_erased(key.tags)

    def _hold(self, key: Key, entry: Entry) -> None:
        if self._local.put(key.rendered, entry.plain, entry.gone_at - self._clock()):
            self.tags.file(key.rendered, key.tags)

    async def _write(self, remote: Remote, key: Key, entry: Entry) -> None:
        await filing.keep(remote, key, envelope.compressed(entry.plain), entry.gone_at - self._clock())

    async def _settle(self, key: Key, entry: Entry | None, lease: Lease, *, is_kept: bool) -> None:
        """End the lease: with the value, or by telling it to those who follow, where it may not be kept."""
        if entry is None:
            return await lease.release()
        blob = envelope.compressed(entry.plain)
        outcome = await self._commit(key, entry, blob, lease) if is_kept else "refused"
        if outcome == "refused":
            await lease.release(relay.whole(blob))
        elif outcome == "lost":
            # Another computed it while we were stopped. Theirs is what everyone else has: let it be ours.
            self._refused["lost_lease"] += 1
            if self._local.peek(key.rendered) == entry.plain:
                self._local.drop(key.rendered)
        return None

    async def _commit(self, key: Key, entry: Entry, blob: bytes, lease: Lease) -> Committed | NoReply:
        reply = await filing.commit(lease, key, blob, entry.gone_at - self._clock())
        if isinstance(reply, NoReply):
            # Once more: those who have heard the pieces in other processes wait for this, and have no other way on.
            await asyncio.sleep(AGAIN_SECONDS)
            reply = await filing.commit(lease, key, blob, entry.gone_at - self._clock())
        return reply

    async def _discard(self, key: Key, reason: Refused) -> None:
        self._refused[reason] += 1
        self.note("l2", key, "miss" if reason is Refused.EXPIRED else "error")
        if self._remote is not None:
            # Awaited: a later write of the same key must not be overtaken by this.
            await self._remote.unlink(key.rendered)

    def _behind(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(write, name="cache write")
        self._writes.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self._writes.discard)

    def _tier(self, tier: str) -> TierStats:
        return TierStats(*(self._outcomes[tier, outcome] for outcome in ("hit", "stale", "miss", "error")))
