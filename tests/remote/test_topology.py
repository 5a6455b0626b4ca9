"""What Remote promises, on a cluster and behind sentinels: the same, and failovers besides."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from ragagent.remote.connection import NoReply, Remote
from redis_server import NEEDED, find_redis_server
from redis_topologies import RedisCluster, RedisSentinel, redis_cluster, redis_sentinel

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

PAIR = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[2])"
SHUT_NODE = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    if find_redis_server() is None:
        pytest.skip(NEEDED)
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
async def remote(cluster: RedisCluster) -> AsyncIterator[Remote]:
    cluster.flush()
    async with Remote(cluster.url, timeout_seconds=0.5, client_name="in-a-cluster") as remote:
        assert remote.state == "up"
        yield remote


async def until_taken(remote: Remote, key: str, value: bytes) -> None:
    async with asyncio.timeout(20):
        while await remote.set(key, value, ttl=60) is not None:  # noqa: ASYNC110  What a user does.
            await asyncio.sleep(0.01)


async def until(remote: Remote, state: str) -> None:
    async with asyncio.timeout(20):
        while remote.state != state:
            await remote.get(f"rag:1:{random.random()}")
            await asyncio.sleep(0.01)


async def hears(client: Redis, remote: Remote) -> bytes:
    """Subscribe on a connection of its own, publish on the shared one."""
    async with client, client.pubsub() as subscription:
        await subscription.subscribe("rag:bus")
        assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
        assert not isinstance(await remote.publish("rag:bus", b"news"), NoReply)
        message: bytes = (await subscription.get_message(timeout=5))["data"]
        return message


async def test_a_cluster_takes_what_one_server_takes(remote: Remote) -> None:
    keys = [f"rag:1:{number}" for number in range(200)]
    for key in keys:
        assert await remote.set(key, key.encode(), ttl=60) is None
    assert await asyncio.gather(*map(remote.get, keys)) == [key.encode() for key in keys]
    assert await remote.unlink(*keys[:3]) == 3
    assert await remote.get(keys[0]) is None
    assert await remote.run(PAIR, ["rag:{t}:a", "rag:{t}:a"], [b"\xff"]) == b"\xff"
    assert await remote.purge("rag:1:") == (197, True)
    assert await remote.get("rag:{t}:a") == b"\xff"
    assert remote.stats().no_replies == {}


async def test_every_node_of_a_cluster_passes_on_what_is_published(remote: Remote) -> None:
    for _ in range(4):  # on any node
        assert await hears(remote.dedicated(), remote) == b"news"


async def test_a_slot_that_moved_is_followed(cluster: RedisCluster, remote: Remote) -> None:
    key = "rag:1:moving"
    assert await remote.get(key) is None
    slot = cluster.nodes[0].command("CLUSTER KEYSLOT", key)
    for owner in [node.command("CLUSTER MYID") for node in cluster.nodes]:
        for node in cluster.nodes:
            node.command("CLUSTER SETSLOT", slot, "NODE", owner)
        assert await remote.set(key, owner, ttl=60) is None
        assert await asyncio.gather(*(remote.get(key) for _ in range(8))) == [owner] * 8
        await remote.unlink(key)
    assert remote.state == "up"


async def test_callers_that_leave_a_cluster_take_no_reply_of_others(remote: Remote) -> None:
    chance = random.Random(7)
    for number in range(20):
        await remote.set(f"rag:1:{number}", str(number).encode(), ttl=60)
    for _ in range(20):
        tasks = [asyncio.create_task(remote.get(f"rag:1:{number}")) for number in range(20)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        for number, reply in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            assert reply == str(number).encode() or isinstance(reply, asyncio.CancelledError)
    assert remote.state == "up"
    assert remote.stats().in_use == 0


async def test_a_cluster_without_one_of_its_shards_is_down_until_it_comes_back(
    cluster: RedisCluster, remote: Remote
) -> None:
    cluster.nodes[SHUT_NODE].kill()
    await until(remote, "degraded")
    assert await remote.get("rag:1:x") is NoReply.OPEN
    cluster.nodes[SHUT_NODE].start()
    cluster.wait()
    await until(remote, "up")
    await until_taken(remote, "rag:1:x", b"value")


@pytest.mark.soak
async def test_a_replica_that_takes_over_a_shard_is_found() -> None:
    with redis_cluster(replicas=1) as cluster:
        async with Remote(cluster.url, timeout_seconds=0.5) as remote:
            keys = [f"rag:1:{number}" for number in range(60)]
            for key in keys:
                await until_taken(remote, key, key.encode())
            primary = next(node for node in cluster.nodes if node.command("ROLE")[0] == b"master")
            primary.kill()
            for key in keys:
                await until_taken(remote, key, b"new")
            await until(remote, "up")
            assert await asyncio.gather(*map(remote.get, keys)) == [b"new"] * 60


@pytest.fixture
def sentinel() -> Iterator[RedisSentinel]:
    with redis_sentinel() as sentinel:
        yield sentinel


async def test_the_primary_that_sentinels_name_is_used_and_its_successor_followed(sentinel: RedisSentinel) -> None:
    async with Remote(sentinel.url, timeout_seconds=0.5) as remote:
        assert remote.state == "up"
        assert await remote.set("rag:1:a", b"kept", ttl=60) is None
        assert await remote.run(PAIR, ["rag:{t}:a", "rag:{t}:a"], [b"\xff"]) == b"\xff"
        assert await hears(remote.dedicated(), remote) == b"news"
        with contextlib.closing(sentinel.replica.admin()) as admin:
            async with asyncio.timeout(10):
                while not admin.exists("rag:1:a"):  # noqa: ASYNC110  It happens in another process.
                    await asyncio.sleep(0.01)
        sentinel.primary.kill()
        await until_taken(remote, "rag:1:b", b"new")
        assert await remote.get("rag:1:a") == b"kept"
        with contextlib.closing(sentinel.replica.admin()) as admin:
            assert admin.get("rag:1:b") == b"new"
        assert await hears(remote.dedicated(), remote) == b"news"
        assert await remote.purge("rag:1:") == (2, True)
