from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import zstandard

from ragagent.cache import envelope, keys
from ragagent.cache.envelope import Refused
from ragagent.cache.fetched import Fetched
from ragagent.cache.keys import Key
from ragagent.cache.life import JITTER, Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.cache.tiers import MAX_WRITES
from ragagent.errors import Invalid, Upstream
from ragagent.remote.connection import NoReply, Remote
from ragagent.types import Erasure
from redis_server import RedisServer

pytestmark = pytest.mark.anyio

KEY = keys.retrieval("acme", [("vs_1", 3, 3)], "model", "question", {})
OTHER = keys.retrieval("other", [("vs_1", 3, 3)], "model", "question", {})
MIB = 1024 * 1024


class Compute:
    """Counts its calls; waits at the gate where that is closed."""

    def __init__(self, value: Any = "value") -> None:
        self.value = value
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Any:
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def compute() -> Compute:
    return Compute()


@pytest.fixture
def cache() -> TieredCache:
    """One tier: a process without Redis."""
    return TieredCache(LocalCache(MIB))


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_was_computed_once_is_found_in_l1(cache: TieredCache, compute: Compute) -> None:
    compute.value = {"text": "Paris", "hits": [1, 2.5, None], "vector": b"\x00"}
    assert await cache.fetch(KEY, compute, Life(60)) == Fetched(compute.value, "miss")
    assert await cache.fetch(KEY, compute, Life(60)) == Fetched(compute.value, "l1")
    assert await cache.get(KEY) == Fetched(compute.value, "l1")
    assert await cache.get(OTHER) is None
    assert compute.calls == 1


async def test_none_is_a_value(cache: TieredCache) -> None:
    nothing = Compute(None)
    assert await cache.fetch(KEY, nothing, Life(60)) == Fetched(None, "miss")
    assert await cache.fetch(KEY, nothing, Life(60)) == Fetched(None, "l1")
    assert await cache.get(KEY) == Fetched(None, "l1")


async def test_no_time_to_live_and_not_enabled_go_past_the_cache(cache: TieredCache, compute: Compute) -> None:
    assert (await cache.fetch(KEY, compute, Life(0))).tier == "bypass"
    await cache.put(KEY, "value", Life(0))
    assert await cache.get(KEY) is None
    await cache.put(KEY, "value", Life(60))
    cache.enabled = False
    assert (await cache.fetch(KEY, compute, Life(60))).tier == "bypass"
    assert await cache.get(KEY) is None
    assert compute.calls == 2


async def test_fifty_callers_compute_once(cache: TieredCache, compute: Compute) -> None:
    compute.gate.clear()
    waiting = [asyncio.create_task(cache.fetch(KEY, compute, Life(60))) for _ in range(50)]
    await turns()
    assert cache.stats().flights == 1
    compute.gate.set()
    assert await asyncio.gather(*waiting) == [Fetched("value", "miss")] * 50
    assert compute.calls == 1


async def test_a_cancelled_caller_leaves_the_answer_to_the_others_and_to_l1(
    cache: TieredCache, compute: Compute
) -> None:
    compute.gate.clear()
    first, second = (asyncio.create_task(cache.fetch(KEY, compute, Life(60))) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    compute.gate.set()
    assert await second == Fetched("value", "miss")
    assert (await cache.fetch(KEY, compute, Life(60))).tier == "l1"


async def test_a_failure_reaches_all_and_is_not_kept(cache: TieredCache, compute: Compute) -> None:
    compute.value = ValueError("no")
    results = await asyncio.gather(*(cache.fetch(KEY, compute, Life(60)) for _ in range(3)), return_exceptions=True)
    assert results == [compute.value] * 3
    compute.value = "value"
    assert (await cache.fetch(KEY, compute, Life(60))).tier == "miss"


async def test_values_stored_together_expire_apart(compute: Compute) -> None:
    clock = Clock()
    local = LocalCache(MIB, clock=clock)
    cache = TieredCache(local, clock=clock)
    names = [keys.embedding("m", str(number)) for number in range(300)]
    for name in names:
        await cache.put(name, b"", Life(60))
    clock.now += 60 * (1 - JITTER) - 0.001
    assert sum(local.peek(name.rendered) is not None for name in names) == 300
    clock.now += 6
    assert 75 < sum(local.peek(name.rendered) is not None for name in names) < 225
    clock.now += 6.002
    assert not any(local.peek(name.rendered) for name in names)


async def test_a_purge_forgets_one_tenant_or_all(cache: TieredCache) -> None:
    await cache.put(KEY, "mine", Life(60))
    await cache.put(OTHER, "theirs", Life(60))
    assert (await cache.purge(keys.tenant_prefix("acme"))).local == 1
    assert await cache.get(KEY) is None
    assert await cache.get(OTHER) == Fetched("theirs", "l1")
    assert (await cache.purge()).local == 1


async def test_a_purge_keeps_to_the_cache(cache: TieredCache) -> None:
    with pytest.raises(Invalid, match="'rag:s:' must begin with 'rag:1:'"):
        await cache.purge("rag:s:")


async def test_what_was_computed_before_a_purge_is_served_but_not_kept(cache: TieredCache, compute: Compute) -> None:
    compute.gate.clear()
    early = asyncio.create_task(cache.fetch(KEY, compute, Life(60)))
    await turns()
    epoch = cache.epoch
    await cache.purge()
    fresh = Compute("newer")
    assert await cache.fetch(KEY, fresh, Life(60)) == Fetched("newer", "miss")
    compute.gate.set()
    assert await early == Fetched("value", "miss")
    await cache.put(KEY, "streamed since before", Life(60), epoch=epoch)
    assert await cache.get(KEY) == Fetched("newer", "l1")


async def test_what_cannot_be_kept_is_served(cache: TieredCache) -> None:
    huge = Compute({"year": 2**70})
    assert [(await cache.fetch(KEY, huge, Life(60))).tier for _ in range(2)] == ["miss", "miss"]
    assert cache.stats().refused == {"too_large": 2}


async def test_a_time_to_live_without_end_is_cut_to_one(cache: TieredCache) -> None:
    await cache.put(KEY, "value", Life(float("inf")))
    assert await cache.get(KEY) == Fetched("value", "l1")


async def test_every_look_up_is_told_and_counted(compute: Compute) -> None:
    heard: list[tuple[str, str, str]] = []
    cache = TieredCache(LocalCache(MIB), on_event=lambda *event: heard.append(event))
    for _ in range(2):
        await cache.fetch(KEY, compute, Life(60))
    assert heard == [("l1", "retrieval", "miss"), ("none", "retrieval", "computed"), ("l1", "retrieval", "hit")]
    stats = cache.stats()
    assert (stats.l1.hits, stats.l1.misses, stats.l2.misses, stats.local.entries) == (1, 1, 0, 1)


@pytest.fixture
async def remotes(redis: RedisServer) -> AsyncIterator[list[Remote]]:
    async with Remote(redis.url, timeout_seconds=0.3) as one, Remote(redis.url, timeout_seconds=0.3) as other:
        yield [one, other]


@pytest.fixture
async def workers(remotes: list[Remote]) -> AsyncIterator[list[TieredCache]]:
    """Two processes that share a Redis."""
    workers = [TieredCache(LocalCache(MIB), remote) for remote in remotes]
    yield workers
    for worker in workers:
        await worker.aclose()


@pytest.fixture
def stored(redis: RedisServer) -> Iterator[Stored]:
    with contextlib.closing(redis.admin()) as admin:
        yield Stored(admin)


class Stored:
    """What Redis holds under a key, to look at and to tamper with."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin

    def __getitem__(self, key: Key) -> bytes | None:
        blob: bytes | None = self._admin.get(key.rendered)
        return blob

    def __setitem__(self, key: Key, blob: bytes) -> None:
        self._admin.set(key.rendered, blob)

    def seconds(self, key: Key) -> float:
        return float(self._admin.pttl(key.rendered)) / 1000


@pytest.mark.redis
async def test_what_one_worker_computed_another_finds(
    workers: list[TieredCache], stored: Stored, compute: Compute
) -> None:
    compute.value = {"text": "Paris is the capital of France. " * 100}
    assert (await workers[0].fetch(KEY, compute, Life(60))).tier == "miss"
    await workers[0].drain()
    assert 50 < stored.seconds(KEY) <= 66
    assert len(stored[KEY] or b"") < 500
    assert await workers[1].fetch(KEY, compute, Life(60)) == Fetched(compute.value, "l2")
    assert await workers[1].fetch(KEY, compute, Life(60)) == Fetched(compute.value, "l1")
    assert compute.calls == 1


@pytest.mark.redis
async def test_fifty_callers_ask_redis_once(workers: list[TieredCache], remotes: list[Remote]) -> None:
    await workers[0].put(KEY, "value", Life(60))
    await workers[0].drain()
    results = await asyncio.gather(*(workers[1].fetch(KEY, Compute(), Life(60)) for _ in range(50)))
    assert {result.tier for result in results} == {"l2"}
    assert workers[1].stats().l2.hits == 1


@pytest.mark.redis
@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "foreign"),
        (b"not ours", "foreign"),
        (b"RG\x02\x00" + bytes(90), "corrupt"),
        (envelope.encode(KEY.rendered, "old", Life(60), 1_700_000_000.0), "expired"),
        (envelope.encode(OTHER.rendered, "theirs", Life(1e9), 1_700_000_000.0), "moved"),
    ],
    ids=["empty", "foreign", "corrupt", "expired", "moved"],
)
async def test_what_is_not_its_value_is_a_miss_and_deleted(
    workers: list[TieredCache], stored: Stored, compute: Compute, blob: bytes, reason: str
) -> None:
    stored[KEY] = blob
    assert await workers[0].get(KEY) is None
    assert stored[KEY] is None
    assert workers[0].stats().refused == {reason: 1}
    stored[KEY] = blob
    assert await workers[0].fetch(KEY, compute, Life(60)) == Fetched("value", "miss")
    await workers[0].drain()
    assert (await workers[1].fetch(KEY, compute, Life(60))).tier == "l2"


class LateRemote(Remote):
    """Holds every reply back until told to deliver it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.replied = asyncio.Event()
        self.deliver = asyncio.Event()

    async def get(self, key: str) -> bytes | NoReply | None:
        reply = await super().get(key)
        self.replied.set()
        await self.deliver.wait()
        return reply


@pytest.mark.redis
async def test_a_reply_that_raced_with_a_purge_does_not_enter_l1(
    redis: RedisServer, workers: list[TieredCache], compute: Compute
) -> None:
    await workers[0].put(KEY, "stale", Life(60))
    await workers[0].drain()
    async with LateRemote(redis.url) as late:
        local = LocalCache(MIB)
        cache = TieredCache(local, late)
        early = asyncio.create_task(cache.fetch(KEY, compute, Life(60)))
        await late.replied.wait()
        assert (await cache.purge()).complete
        late.deliver.set()
        assert await early == Fetched("stale", "l2")
        assert len(local) == 0
        assert await cache.fetch(KEY, compute, Life(60)) == Fetched("value", "miss")
        await cache.aclose()


@pytest.mark.redis
async def test_a_look_up_during_a_purge_does_not_carry_the_old_value_back(
    redis: RedisServer, workers: list[TieredCache], compute: Compute
) -> None:
    lookups: list[asyncio.Task[Fetched[Any]]] = []

    class Overtaken(LateRemote):
        """Is asked for the key after the purge has begun, and before it reaches Redis."""

        async def purge(self, prefix: str, timeout_seconds: float = 10.0) -> tuple[int, bool]:
            lookups.append(asyncio.create_task(reader.fetch(KEY, compute, Life(60))))
            await self.replied.wait()
            return await super().purge(prefix, timeout_seconds)

    await workers[0].put(KEY, "stale", Life(60))
    await workers[0].drain()
    async with Overtaken(redis.url) as late:
        local = LocalCache(MIB)
        reader = TieredCache(local, late)
        await reader.purge()
        late.deliver.set()
        assert await lookups[0] == Fetched("stale", "l2")
        assert len(local) == 0


@pytest.mark.redis
async def test_a_purge_empties_redis_and_says_when_it_could_not(
    redis: RedisServer, workers: list[TieredCache], stored: Stored
) -> None:
    await workers[0].put(KEY, "mine", Life(60))
    await workers[0].put(OTHER, "theirs", Life(60))
    purged = await workers[0].purge(keys.tenant_prefix("acme"))
    assert (purged.local, purged.remote, purged.complete) == (1, 1, True)
    assert stored[KEY] is None
    assert stored[OTHER] is not None
    redis.kill()
    assert not (await workers[0].purge()).complete


@pytest.mark.redis
async def test_without_redis_every_question_is_still_answered(
    redis: RedisServer, workers: list[TieredCache], remotes: list[Remote]
) -> None:
    redis.pause()
    for number in range(40):
        compute = Compute(number)
        key = keys.embedding("m", str(number))
        assert await workers[0].fetch(key, compute, Life(60)) == Fetched(number, "miss")
        assert await workers[0].fetch(key, compute, Life(60)) == Fetched(number, "l1")
    stats = workers[0].stats()
    assert stats.l2.errors == 40
    assert stats.remote is not None
    assert stats.remote.state == "degraded"
    redis.resume()
    async with asyncio.timeout(10):
        while remotes[0].state != "up":  # noqa: ASYNC110  No event tells of it: it happens in another process.
            await asyncio.sleep(0.01)
    await workers[0].put(KEY, "value", Life(60))
    await workers[0].drain()
    assert await workers[1].get(KEY) == Fetched("value", "l2")


@pytest.mark.redis
async def test_writes_behind_the_answers_are_bounded(workers: list[TieredCache]) -> None:
    for number in range(MAX_WRITES + 10):
        await workers[0].put(keys.embedding("m", str(number)), b"vector", Life(60))
    assert workers[0].stats().refused == {"too_many_writes": 10}
    await workers[0].drain()
    assert workers[0].stats().local.entries == MAX_WRITES + 10


def nonsense(seed: int) -> Iterator[bytes]:
    """Ten thousand blobs that are no value: noise, cut, damaged, foreign, or too large once unpacked."""
    chance = random.Random(seed)
    good = envelope.encode(KEY.rendered, {"text": "Paris " * 400}, Life(60), 1_700_000_000.0)
    assert good is not None
    small = envelope.compressed(good)
    head = b"RG\x02\x02" + good[4 : envelope._PAYLOAD_AT]
    bombs = [zstandard.ZstdCompressor(write_content_size=told).compress(bytes(1 << 26)) for told in (True, False)]
    for _ in range(2000):
        yield chance.randbytes(chance.randrange(200))
        yield head[:4] + chance.randbytes(chance.randrange(400))
        yield small[: chance.randrange(len(small))]
        damaged = bytearray(good)
        damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        yield bytes(damaged)
        yield head + (chance.choice(bombs) if chance.random() < 0.1 else pickle.dumps({"a": chance.random()}))


@pytest.mark.redis
async def test_no_bytes_in_redis_ever_raise_or_weigh_or_pass(
    workers: list[TieredCache], remotes: list[Remote], stored: Stored
) -> None:
    blobs = list(nonsense(7))
    assert len(blobs) == 10_000
    tracemalloc.start()
    try:
        for blob in blobs:
            assert isinstance(envelope.decode(KEY.rendered, blob, 1_700_000_000.0), Refused)
        for blob in blobs[:200]:
            stored[KEY] = blob
            assert await workers[0].get(KEY) is None
            assert stored[KEY] is None
        assert tracemalloc.get_traced_memory()[1] < 2 * envelope.MAX_PAYLOAD_BYTES
    finally:
        tracemalloc.stop()
    assert sum(workers[0].stats().refused.values()) == 200
    assert workers[0].stats().l2.errors + workers[0].stats().l2.misses == 200


@pytest.mark.redis
async def test_no_text_of_a_value_is_ever_logged(
    redis: RedisServer, workers: list[TieredCache], stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "Paris is the capital of France"

    async def fail() -> str:
        raise Upstream(f"Cannot answer '{secret}'.")

    caplog.set_level(logging.DEBUG)
    stored[KEY] = b"RG\x02\x00" + secret.encode() * 10
    await workers[0].fetch(KEY, Compute({"text": secret}), Life(0.01, stale=60, on_error=60), shared=True)
    await workers[0].drain()
    await asyncio.sleep(0.02)
    assert (await workers[0].fetch(KEY, fail, Life(60), shared=True)).tier == "stale"
    with contextlib.closing(redis.admin()) as admin:
        admin.config_set("maxmemory", 1)
    with pytest.raises(Upstream):
        await workers[1].fetch(OTHER, fail, Life(60), shared=True)
    await workers[1].fetch(OTHER, Compute({"text": secret}), Life(60), shared=True)
    await workers[1].drain()
    redis.kill()
    await workers[1].fetch(keys.embedding("m", secret), Compute(secret), Life(60), shared=True)
    await asyncio.sleep(0.05)
    assert caplog.records, "something was worth a line"
    assert "Paris" not in caplog.text


@pytest.mark.redis
async def test_whatever_enters_the_first_tier_is_filed_under_its_tags(redis: RedisServer, compute: Compute) -> None:
    key = keys.retrieval("acme", [("vs_1", 1, 1)], "m", "q", {})
    async with Remote(redis.url, timeout_seconds=0.3) as remote:
        first, other = (TieredCache(LocalCache(MIB), remote) for _ in range(2))
        await first.fetch(key, compute, Life(60))
        await first.put(keys.embedding("m", "x"), b"", Life(60))
        await first.aclose()
        assert (await other.fetch(key, compute, Life(60))).tier == "l2"
        for cache in (first, other):
            assert cache.tags.by_key() == {key.rendered: [*key.tags]}
            assert cache.erase(Erasure(1, "acme", "vs_1", removed=2, replaced=0)) == [key.rendered]
