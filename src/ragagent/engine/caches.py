"""The cache as its operators see it: one worker's numbers, and the purge of one tenant's values."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ragagent import names, telemetry
from ragagent.cache import keys
from ragagent.cache.fetched import Purged
from ragagent.cache.keys import Kind
from ragagent.cache.lookups import Lookups
from ragagent.cache.tiered import TieredCache
from ragagent.engine.answering.semantic import Semantic
from ragagent.engine.eraser import Eraser
from ragagent.errors import Forbidden, Invalid
from ragagent.types import Caller

# Vectors belong to no tenant, so that no tenant may purge them.
PURGEABLE: Sequence[str] = tuple(kind for kind in get_args(Kind) if kind != "embedding")


@dataclasses.dataclass(frozen=True)
class Caches:
    tiered: TieredCache
    lookups: Lookups
    eraser: Eraser
    semantic: Semantic | None

    def stats(self) -> Mapping[str, Any]:
        """Return this worker's numbers since its start: plain, and without anything that people wrote."""
        found = self.tiered.stats()
        return {
            "pid": os.getpid(),
            "enabled": self.tiered.enabled,
            "lookups": self.lookups.counts(),
            "hit_ratio": {tier: self._hit_ratio(tier) for tier in ("l1", "l2")},
            "local": dataclasses.asdict(found.local),
            "redis": dataclasses.asdict(found.remote) if found.remote is not None else None,
            "flights": found.flights,
            "computed": dict(found.computed),
            "refused": dict(found.refused),
            "semantic": dataclasses.asdict(self.semantic.stats()) if self.semantic is not None else None,
        }

    def beat(self) -> Mapping[str, Any]:
        """Return the few numbers that each beat of the worker tells the supervisor."""
        found, (l1, l2) = self.tiered.stats(), (self._hits(tier) for tier in ("l1", "l2"))
        return {
            "l1_hits": l1[0],
            "l1_misses": l1[1],
            "l2_hits": l2[0],
            "l2_misses": l2[1],
            "entries": found.local.entries,
            "bytes": found.local.bytes,
            "max_bytes": found.local.max_bytes,
            "evictions": found.local.evictions,
            "flights": found.flights,
            "redis": found.remote.state if found.remote is not None else "off",
            "semantic": self.semantic.state if self.semantic is not None else "none",
            "semantic_hits": self.lookups.of("semantic", "hit"),
        }

    async def purge(self, caller: Caller, kind: str | None) -> Purged:
        """Drop the caller's tenant's values, of one kind or all, in every worker. Raises Invalid, Forbidden."""
        if caller.stores is not None:
            raise Forbidden("This key is bound to some stores; purging the tenant's cache takes one that is not.")
        if kind is not None and kind not in PURGEABLE:
            raise Invalid(f"'kind' has value '{kind:.80}'; it must be one of {', '.join(PURGEABLE)}.", param="kind")
        return await self.eraser.purge(keys.tenant_prefix(caller.tenant) + (f"{kind}:" if kind else ""))

    def report(self) -> None:
        """Have the exporter ask for all of this. After `telemetry.init`."""
        telemetry.gauge(names.CACHE_REQUESTS, self.lookups.points)
        telemetry.gauge(names.CACHE_ENTRIES, lambda: self.tiered.stats().local.entries)
        telemetry.gauge(names.CACHE_BYTES, lambda: self.tiered.stats().local.bytes)
        telemetry.gauge(names.CACHE_EVICTIONS, lambda: self.tiered.stats().local.evictions)
        telemetry.gauge(names.CACHE_FLIGHTS, lambda: self.tiered.stats().flights)
        telemetry.gauge(names.CACHE_REFUSALS, self._refusals)
        if (semantic := self.semantic) is not None:
            telemetry.gauge(names.SEMANTIC_ON, lambda: int(semantic.state == "ok"))
            telemetry.gauge(names.SEMANTIC_FALSE_SHARE, lambda: semantic.stats().false_share)

    def _refusals(self) -> list[tuple[dict[str, str], int]]:
        found = self.tiered.stats()
        refused = {**found.refused, "l1": found.local.refusals}
        return [({names.CACHE_REFUSAL: reason}, count) for reason, count in refused.items()]

    def _hits(self, tier: str) -> tuple[int, int]:
        """Return the look-ups that found something, old or new, and those that did not."""
        note = self.lookups.of
        return note(tier, "hit") + note(tier, "stale"), note(tier, "miss") + note(tier, "error")

    def _hit_ratio(self, tier: str) -> float | None:
        hits, others = self._hits(tier)
        return round(hits / (hits + others), 4) if hits + others else None
