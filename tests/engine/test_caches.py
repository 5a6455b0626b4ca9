"""The cache as operators see it: its metrics at a real collector, and its few numbers in each beat."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from otlp_collector import Collector, otlp_collector
from ragagent import config, names, telemetry
from ragagent.cache import keys
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.lookups import Lookups
from ragagent.cache.tiered import TieredCache
from ragagent.config import Telemetry
from ragagent.engine.caches import Caches
from ragagent.engine.eraser import Eraser
from ragagent.store.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        telemetry.init(Telemetry(endpoint=collector.endpoint), role="worker", slot=0)
        yield collector
        telemetry.shutdown()


def key(tenant: str, text: str) -> keys.Key:
    return keys.answer(tenant, [], "p", "e", "g", [text], {})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(Database.open(tmp_path / "ragagent.db")) as database:
        yield database


async def filled(database: Database, max_bytes: int = config.MIB) -> Caches:
    lookups = Lookups()
    tiered = TieredCache(LocalCache(max_bytes), on_event=lookups.note)
    caches = Caches(tiered, lookups, Eraser(database, tiered), None)
    for tenant in ("one", "two"):
        for _ in range(3):
            await tiered.fetch(key(tenant, "?"), lambda: _value("!"), Life(60))
    await tiered.fetch(key("one", "large"), lambda: _value("x" * config.MIB), Life(60))
    return caches


async def _value(text: str) -> str:
    return text


async def test_the_metrics_are_what_was_counted_and_know_no_tenant(collector: Collector, database: Database) -> None:
    caches = await filled(database)
    caches.report()
    telemetry.shutdown()
    answers = {names.CACHE_TIER: "l1", names.CACHE_KIND: "answer"}
    assert collector.total(names.CACHE_REQUESTS.name, {**answers, names.CACHE_OUTCOME: "hit"}) == 4
    assert collector.total(names.CACHE_REQUESTS.name, {**answers, names.CACHE_OUTCOME: "miss"}) == 3
    (entries,) = collector.of(names.CACHE_ENTRIES.name)
    (memory,) = collector.of(names.CACHE_BYTES.name)
    assert (entries.value, entries.kind) == (2, "sum")
    assert 500 < memory.value < config.MIB
    assert collector.total(names.CACHE_EVICTIONS.name) == collector.total(names.CACHE_FLIGHTS.name) == 0
    assert collector.total(names.CACHE_REFUSALS.name, {names.CACHE_REFUSAL: "l1"}) == 1
    found = collector.of(names.CACHE_REQUESTS.name)
    assert {point.attributes[names.CACHE_OUTCOME] for point in found} == {"hit", "miss", "computed"}
    assert len(found) == 3, "one series for both tenants"
    assert all(point.is_monotonic for point in found)
    assert collector.undocumented() == set()


async def test_the_beat_is_small_and_plain(database: Database) -> None:
    told = (await filled(database)).beat()
    assert (told["l1_hits"], told["l1_misses"], told["entries"], told["redis"]) == (4, 3, 2, "off")
    assert len(json.dumps(told)) < 400


async def test_the_stats_are_plain_and_add_up(database: Database) -> None:
    told = (await filled(database)).stats()
    assert json.loads(json.dumps(told)) == told
    assert told["hit_ratio"] == {"l1": 0.5714, "l2": None}
    assert told["lookups"]["l1"]["answer"] == {"hit": 4, "miss": 3}
