from __future__ import annotations

import asyncio
import contextlib

import pytest

from otlp_collector import otlp_collector
from ragagent import names, telemetry
from ragagent.config import Telemetry
from ragagent.remote import slots
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


async def test_what_the_connection_does_arrives_at_a_collector(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 0.01)
    with otlp_collector() as collector:
        telemetry.init(Telemetry(endpoint=collector.endpoint), role="worker", slot=0)
        try:
            async with Remote(redis.url, connections=1, timeout_seconds=5.0) as remote:
                await remote.set("rag:1:a", b"value", ttl=60)
                await asyncio.gather(*(remote.get("rag:1:a") for _ in range(3)))
                with contextlib.closing(redis.admin()) as admin:
                    admin.rpush("rag:1:list", "x")
                    assert await remote.get("rag:1:list") is NoReply.REFUSED
                    admin.client_pause(200)
                replies = await asyncio.gather(*(remote.unlink(key) for key in "ab"))
                assert replies == [0, NoReply.SATURATED]
        finally:
            await asyncio.to_thread(telemetry.shutdown)
        operations = {
            (point.attributes[names.DB_OPERATION], point.attributes.get(names.ERROR_TYPE)): point.count
            for point in collector.of(names.REDIS_DURATION.name, {names.DB_SYSTEM: "redis"})
        }
        assert operations == {
            ("SET", None): 1,
            ("GET", None): 1,
            ("MGET", None): 1,
            ("GET", "ResponseError"): 1,
            ("UNLINK", None): 1,
        }
        assert collector.total(names.REDIS_CONNECTS.name, {names.DB_POOL: "redis"}) == 1
        assert collector.total(names.REDIS_TIMEOUTS.name) == 1
        assert (
            collector.of(names.REDIS_WAIT.name)[0].count == 2
        )  # the batch that waited for the first GET, and the second UNLINK
        reasons = {
            point.attributes[names.REDIS_NO_REPLY]: point.value for point in collector.of(names.REDIS_NO_REPLIES.name)
        }
        assert reasons == {"refused": 1, "saturated": 1}
        assert collector.undocumented() == set()
