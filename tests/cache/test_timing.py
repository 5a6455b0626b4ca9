"""How long look-ups take, as a collector gets to know it, and what telling it costs a hit."""

from __future__ import annotations

import pytest

from otlp_collector import otlp_collector
from ragagent import config, names, telemetry
from ragagent.cache import keys, timing
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.config import Telemetry
from ragagent.remote.connection import Remote
from redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def _value() -> str:
    return "!"


async def test_every_look_up_in_l2_is_timed_and_few_of_those_in_l1(redis: RedisServer) -> None:
    key = keys.retrieval("one", [], "m", "q", {})
    with otlp_collector() as collector:
        telemetry.init(Telemetry(endpoint=collector.endpoint), role="worker", slot=0)
        async with Remote(redis.url) as remote:
            cache = TieredCache(LocalCache(config.MIB), remote)
            for _ in range(1 + 3 * timing.SAMPLED):
                await cache.fetch(key, _value, Life(60))
            await cache.aclose()
        telemetry.shutdown()
        attributes = {names.CACHE_KIND: "retrieval"}
        (l1,) = collector.of(names.CACHE_DURATION.name, {**attributes, names.CACHE_TIER: "l1"})
        (l2,) = collector.of(names.CACHE_DURATION.name, {**attributes, names.CACHE_TIER: "l2"})
        assert 2 <= l1.count <= 4
        assert l2.count == 1
        assert 0 < l1.value < 5
        assert 0 < l2.value < 5
        assert collector.undocumented() == set()
