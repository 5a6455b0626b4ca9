"""What Redis holds by tag: real scripts on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ragagent.cache import envelope, keys
from ragagent.cache.erasing import filing
from ragagent.cache.keys import Key
from ragagent.remote.connection import Remote
from ragagent.remote.lease import Lease, Leases
from ragagent.types import Erasure
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, timeout_seconds=1.0) as remote:
        yield remote


@pytest.fixture
def admin(redis: RedisServer) -> Iterator[Any]:
    with contextlib.closing(redis.admin()) as admin:
        yield admin


def key(*versions: tuple[str, int, int], question: str = "q", tenant: str = "acme") -> Key:
    return keys.retrieval(tenant, versions, "model", question, {})


def erasure(store_id: str, removed: int = 0, replaced: int = 0) -> Erasure:
    return Erasure(1, "acme", store_id, removed, replaced)


def values(admin: Any) -> set[str]:
    return {name.decode() for name in admin.keys(f"{keys.PREFIX}*")}


async def test_what_was_read_from_a_store_goes_with_it(remote: Remote, admin: Any) -> None:
    of_a, of_both, of_b = key(("vs_a", 3, 3)), key(("vs_a", 3, 3), ("vs_b-2", 5, 5)), key(("vs_b-2", 5, 5))
    theirs = key(("vs_a", 3, 3), tenant="other")
    for each in (of_a, of_both, of_b, theirs, keys.embedding("m", "text")):
        await filing.keep(remote, each, b"value", 60)
    assert len(values(admin)) == 5
    assert await filing.erase(remote, erasure("vs_a", removed=4))
    assert values(admin) == {each.rendered for each in (of_b, theirs, keys.embedding("m", "text"))}
    assert await filing.erase(remote, erasure("vs_b", removed=6))
    assert of_b.rendered not in values(admin)


async def test_what_is_late_is_refused_and_what_is_newer_is_not(remote: Remote, admin: Any) -> None:
    await filing.erase(remote, erasure("vs_a", removed=7))
    await filing.erase(remote, erasure("vs_a", removed=4, replaced=9))
    late = [key(("vs_a", 6, 9)), key(("vs_a", 9, 8)), key(("vs_b", 1, 1), ("vs_a", 6, 9))]
    for each in late:
        await filing.keep(remote, each, b"value", 60)
    assert values(admin) == set()
    await filing.keep(remote, key(("vs_a", 7, 9)), b"value", 60)
    assert values(admin) == {key(("vs_a", 7, 9)).rendered}
    assert 0 < admin.ttl(filing._places("acme", "vs_a")[1]) <= filing.MARK_SECONDS


async def test_who_has_lost_the_lease_stores_nothing_and_who_has_it_uses_it_up(remote: Remote, admin: Any) -> None:
    leases = Leases(remote, envelope.STAMP)
    for each in (key(("vs_a", 3, 3)), keys.embedding("m", "q")):
        lease = await leases.acquire(each.rendered)
        assert isinstance(lease, Lease)
        assert await filing.commit(lease, each, b"mine", 60) == "stored"
        assert await filing.commit(lease, each, b"again", 60) == "lost"
        assert values(admin) == {each.rendered}
        assert admin.get(each.rendered) == b"mine"
        admin.flushall()
    late = key(("vs_a", 3, 3))
    lease = await leases.acquire(late.rendered)
    assert isinstance(lease, Lease)
    await filing.erase(remote, erasure("vs_a", removed=4))
    assert await filing.commit(lease, late, b"late", 60) == "refused"
    await lease.release()
    assert values(admin) == set()


async def test_thousands_of_values_go_in_batches(remote: Remote, admin: Any) -> None:
    for number in range(2 * filing.BATCH + 7):
        await filing.keep(remote, key(("vs_a", 1, 1), question=str(number)), b"value", 60)
    assert await filing.erase(remote, erasure("vs_a", removed=2))
    assert values(admin) == set()
    assert admin.exists(filing._places("acme", "vs_a")[0]) == 0


async def test_a_set_forgets_what_expired_and_outlives_its_last_value(remote: Remote, admin: Any) -> None:
    place = filing._places("acme", "vs_a")[0]
    await filing.keep(remote, key(("vs_a", 1, 1), question="long"), b"value", 3600)
    await filing.keep(remote, key(("vs_a", 1, 1), question="short"), b"value", 0.001)
    await asyncio.sleep(0.01)
    assert 3600 < admin.ttl(place) <= 3600 + filing.SPARE_SECONDS, "a shorter life does not shorten the set's"
    await filing.keep(remote, key(("vs_a", 1, 1), question="third"), b"value", 60)
    assert admin.zcard(place) == 2


async def test_all_keys_of_one_value_share_a_slot(remote: Remote, admin: Any) -> None:
    each = key(("vs_a", 1, 1), ("vs_b", 1, 1))
    names = [each.rendered, *filing._places("acme", "vs_a"), *filing._places("acme", "vs_b")]
    assert len({name[name.index("{") : name.index("}")] for name in names}) == 1
    assert all(name.startswith("rag:") for name in names)
    assert not any(name.startswith(keys.PREFIX) for name in names[1:]), "no purge may take the marks away"


async def test_an_erasure_that_redis_did_not_confirm_says_so(redis: RedisServer, remote: Remote) -> None:
    redis.pause()
    assert not await filing.erase(remote, erasure("vs_a", removed=2))
    redis.resume()
