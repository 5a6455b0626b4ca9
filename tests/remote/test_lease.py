from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot

from ragagent.remote import lease as module
from ragagent.remote.connection import NoReply, Remote
from ragagent.remote.lease import Beat, Heard, Held, Lease, Leases, Newer
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

NAME = "rag:1:{0123456789abcdef}:answer:00ff"
STAMP = slice(1, 3)


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, timeout_seconds=2.0) as opened:
        yield opened


@pytest.fixture
def leases(remote: Remote) -> Leases:
    return Leases(remote, STAMP, seconds=5.0)


async def taken(leases: Leases) -> Lease:
    lease = await leases.acquire(NAME)
    assert isinstance(lease, Lease)
    return lease


async def heard(leases: Leases, lease: Lease, first: int = 0, *, wants_pieces: bool = False) -> Heard:
    found = await leases.poll(NAME, lease._token, b"", first, wants_pieces=wants_pieces)
    assert isinstance(found, Heard)
    return found


async def test_one_has_it_and_the_others_learn_who(leases: Leases) -> None:
    lease = await taken(leases)
    assert await leases.acquire(NAME) == Held(lease._token)
    await lease.release()
    await taken(leases)


async def test_what_is_committed_is_found_and_the_lease_is_free(leases: Leases, remote: Remote) -> None:
    lease = await taken(leases)
    assert await lease.commit(b"#v1: text", 60) == "stored"
    assert await leases.acquire(NAME) == Newer(b"#v1: text")
    assert isinstance(await leases.acquire(NAME, known=b"v1"), Lease), "who knows that value wants another"
    assert await lease.commit(b"#v2: text", 60) == "lost"
    assert await remote.get(NAME) == b"#v1: text"


async def test_who_lost_it_can_store_nothing(leases: Leases, remote: Remote) -> None:
    short = Leases(remote, STAMP, seconds=0.02)
    lost = await taken(short)
    await asyncio.sleep(0.05)
    lease = await taken(leases)
    assert await lost.commit(b"#v1: old", 60) == "lost"
    await lost.release(b"last words")
    assert await lost.beat(0, [b"a"]) == Beat(is_lost=True, is_followed=False, pieces=0)
    assert await leases.acquire(NAME) == Held(lease._token), "nor end its successor's"
    assert await lease.commit(b"#v2: new", 60) == "stored"
    assert await remote.get(NAME) == b"#v2: new"


async def test_a_beat_renews_it(remote: Remote) -> None:
    leases = Leases(remote, STAMP, seconds=0.3)
    lease = await taken(leases)
    for _ in range(4):
        await asyncio.sleep(0.15)
        beat = await lease.beat(0, [])
        assert isinstance(beat, Beat)
        assert not beat.is_lost


async def test_pieces_are_heard_once_each_and_in_order(leases: Leases) -> None:
    lease = await taken(leases)
    assert await lease.beat(0, []) == Beat(is_lost=False, is_followed=False, pieces=0)
    assert (await heard(leases, lease, wants_pieces=True)).pieces == []
    assert await lease.beat(0, [b"a", b"b"]) == Beat(is_lost=False, is_followed=True, pieces=2)
    # A beat whose reply was lost is sent again, with what has come meanwhile.
    assert await lease.beat(0, [b"a", b"b", b"c"]) == Beat(is_lost=False, is_followed=True, pieces=3)
    assert await lease.beat(3, []) == Beat(is_lost=False, is_followed=True, pieces=3)
    assert (await heard(leases, lease)).pieces == [b"a", b"b", b"c"]
    assert (await heard(leases, lease, first=2)).pieces == [b"c"]
    assert (await heard(leases, lease, first=3)).pieces == []


async def test_pieces_that_a_full_server_has_dropped_are_asked_for_again(leases: Leases, remote: Remote) -> None:
    lease = await taken(leases)
    await lease.beat(0, [b"a", b"b"])
    await remote.unlink(module._told(NAME, lease._token))
    assert await lease.beat(2, [b"c"]) == Beat(is_lost=False, is_followed=False, pieces=0)
    assert await lease.beat(0, [b"a", b"b", b"c"]) == Beat(is_lost=False, is_followed=False, pieces=3)


async def test_last_words_are_read_after_the_lease_has_ended(leases: Leases) -> None:
    lease = await taken(leases)
    await lease.beat(0, [b"a"])
    await lease.release(b"failed")
    found = await heard(leases, lease, first=1)
    assert (found.blob, found.token, found.pieces) == (None, None, [b"failed"])


async def test_everything_is_in_one_slot_and_ends_by_itself(leases: Leases, redis: RedisServer) -> None:
    lease = await taken(leases)
    await lease.beat(0, [b"a"])
    await heard(leases, lease, wants_pieces=True)
    with contextlib.closing(redis.admin()) as admin:
        names = [name for name in admin.scan_iter() if isinstance(name, bytes)]
        assert len(names) == 3
        assert {key_slot(name) for name in names} == {key_slot(NAME.encode())}
        assert all(name.startswith(b"rag:1:") for name in names), "a purge ends what is under way"
        assert all(0 < int(str(admin.pttl(name))) <= 5000 for name in names)


async def test_without_redis_there_is_no_reply(redis: RedisServer, remote: Remote, leases: Leases) -> None:
    lease = await taken(leases)
    redis.kill()
    assert isinstance(await leases.acquire(NAME), NoReply)
    assert isinstance(await lease.beat(0, []), NoReply)
    assert isinstance(await lease.commit(b"", 1), NoReply)
    assert isinstance(await leases.poll(NAME, lease._token), NoReply)
    await lease.release()
