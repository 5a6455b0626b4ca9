"""Several processes, one computation: whoever leads, fails, dies, or is stopped and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import pytest

from ragagent.cache import envelope, keys
from ragagent.cache.envelope import Entry
from ragagent.cache.erasing import filing
from ragagent.cache.fetched import Streaming
from ragagent.cache.flights.flight import Tell, Teller
from ragagent.cache.flights.relay import Computed, Received, Relay
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.errors import Unavailable
from ragagent.remote.connection import Remote
from ragagent.remote.lease import Lease, Leases
from ragagent.types import Erasure
from redis_server import RedisServer
from servers import wait_until
from sharers import LEASE_SECONDS, Sharer, key, sharers

pytestmark = [pytest.mark.redis, pytest.mark.anyio]


@pytest.fixture(scope="module")
def four(shared_redis: RedisServer) -> Iterator[list[Sharer]]:
    with sharers(shared_redis, 4) as processes:
        yield processes


def stored(redis: RedisServer, text: str) -> Any:
    with contextlib.closing(redis.admin()) as admin:
        blob = admin.get(key(text).rendered)
    assert isinstance(blob, bytes)
    entry = envelope.decode(key(text).rendered, blob, time.time())
    assert isinstance(entry, Entry)
    return entry.value


def leader(processes: list[Sharer]) -> Sharer:
    return wait_until(lambda: next((each for each in processes if each.is_computing), None), 10) or processes[0]


def test_two_hundred_callers_in_four_processes_compute_once(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("once", seconds=0.3, callers=50)
    found = [value for each in four for value in each.answered()]
    assert len(found) == 200
    assert sum(each.computations() for each in four) == 1
    assert all(value == found[0] for value in found)


def test_work_that_outlasts_its_lease_is_still_done_once(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("long", seconds=3 * LEASE_SECONDS)
    found = [each.answered() for each in four]
    assert sum(each.computations() for each in four) == 1
    assert all(value == found[0] for value in found)


def test_a_failure_reaches_everyone_at_once_and_nobody_tries_again(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("away", seconds=0.3, callers=10, fails=True)
    assert [each.answered() for each in four] == [["Upstream"] * 10] * 4
    assert sum(each.computations() for each in four) == 1
    four[0].ask("away", seconds=0.0)
    assert isinstance(four[0].answered()[0], dict), "a failure is not kept"
    four[0].computations()


def test_all_hear_the_same_pieces(redis: RedisServer, four: list[Sharer]) -> None:
    four[0].ask("talk", pieces=12, seconds=0.1)
    four[0].expect("computing")
    for each in four[1:]:
        each.ask("talk", pieces=12, callers=3)
    ((heard, value),) = four[0].answered()
    assert len(heard) == 12
    for each in four[1:]:
        for pieces, theirs in each.answered():
            assert theirs == value
            assert pieces == heard[: len(pieces)]
            assert len(pieces) > 3, "followers hear them while they are made"
        assert each.computations() == 0


def test_a_leader_whose_own_callers_have_gone_talks_on_for_the_others(redis: RedisServer, four: list[Sharer]) -> None:
    four[0].ask("gone", pieces=30, leaves_after=0.7)
    four[0].expect("computing")
    four[1].ask("gone", pieces=30)
    assert four[0].answered() == ["TimeoutError"]
    ((heard, value),) = four[1].answered()
    assert len(heard) > 20
    assert "by" in value
    assert four[1].computations() == 0


def test_a_failure_in_the_middle_is_everyones(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four[:2]:
        each.ask("break off", pieces=25, fails=True)
    for each in four[:2]:
        ((heard, error),) = each.answered()
        assert heard
        assert error == "Upstream"
    assert sum(each.computations() for each in four) == 1


def test_a_zombie_does_not_overwrite_its_successor(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("zombie", seconds=0.3)
    zombie = leader(four)
    zombie.signal(signal.SIGSTOP)
    others = [each for each in four if each is not zombie]
    found = [each.answered() for each in others]
    assert found[0] == found[1] == found[2]
    zombie.signal(signal.SIGCONT)
    assert zombie.answered() != found[0], "its own callers get what it computed"
    assert stored(redis, "zombie") == found[0][0]
    wait_until(lambda: _asked(zombie, "zombie") == found[0], 5)
    assert stored(redis, "zombie") == found[0][0]
    for each in four:
        each.computations()


def test_a_killed_leader_is_taken_over_from_by_one(redis: RedisServer) -> None:
    with sharers(redis, 3) as processes:
        for each in processes:
            each.ask("killed", seconds=0.3, callers=50)
        first = leader(processes)
        began = time.monotonic()
        first.signal(signal.SIGKILL)
        others = [each for each in processes if each is not first]
        found = [value for each in others for value in each.answered()]
        assert time.monotonic() - began < 10 * LEASE_SECONDS
        assert len(found) == 100
        assert all(value == found[0] for value in found)
        assert sum(each.computations() for each in others) == 1
        # And one that is killed in the middle of its talk: what has been heard cannot be taken back.
        others[0].ask("killed talking", pieces=100)
        others[0].expect("computing")
        others[1].ask("killed talking", pieces=100)
        time.sleep(1.0)
        others[0].signal(signal.SIGKILL)
        ((heard, error),) = others[1].answered()
        assert heard
        assert error == "Unavailable"


def test_when_redis_is_away_each_process_computes_once(redis: RedisServer, four: list[Sharer]) -> None:
    redis.kill()
    for each in four[:2]:
        each.ask("alone", seconds=0.2, callers=20)
    for each in four[:2]:
        assert len(each.answered()) == 20
        assert each.computations() == 1


def _asked(sharer: Sharer, text: str) -> list[Any]:
    sharer.ask(text)
    return sharer.answered()


# Silence and nonsense, seen from one process


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, timeout_seconds=2.0) as opened:
        yield opened


async def held(remote: Remote, name: str) -> Lease:
    """Return a lease that somebody holds who is alive, and says nothing."""
    lease = await Leases(remote, envelope.STAMP, seconds=30).acquire(name)
    assert isinstance(lease, Lease)
    return lease


async def ours(tell: Tell) -> str:
    return "ours"


async def test_for_one_who_is_silent_nobody_waits_for_ever(remote: Remote) -> None:
    relay = Relay(Leases(remote, envelope.STAMP), patience_seconds=0.2)
    lease = await held(remote, key("silent").rendered)
    began = time.monotonic()
    outcome = await relay.run(key("silent").rendered, ours, Teller(lambda piece: None))
    assert outcome == Computed("ours", None)
    assert 0.2 <= time.monotonic() - began < 3
    assert await lease.commit(b"theirs", 60) == "stored", "whose lease is not touched"


async def test_who_has_said_something_and_then_is_silent_is_an_error(remote: Remote) -> None:
    relay = Relay(Leases(remote, envelope.STAMP), patience_seconds=0.3)
    lease = await held(remote, key("silent").rendered)
    await lease.beat(0, [msgpack.packb([0, "It was"])])
    heard: list[Any] = []
    with pytest.raises(Unavailable, match="broke off"):
        await relay.run(key("silent").rendered, ours, Teller(heard.append), wants_pieces=True)
    assert heard == ["It was"]


@pytest.mark.parametrize("nonsense", [b"", b"\xc1", b"\x93\x00", msgpack.packb(7), msgpack.packb([1, {"kind": 3}])])
async def test_nonsense_among_the_pieces_is_a_broken_answer(remote: Remote, nonsense: bytes) -> None:
    relay = Relay(Leases(remote, envelope.STAMP), patience_seconds=5)
    lease = await held(remote, key("nonsense").rendered)
    await lease.beat(0, [nonsense])
    with pytest.raises(Unavailable, match="broke off"):
        await relay.run(key("nonsense").rendered, ours, Teller(lambda piece: None))


async def test_a_leader_that_is_cancelled_leaves_it_to_the_next_at_once(remote: Remote) -> None:
    relay = Relay(Leases(remote, envelope.STAMP, seconds=30))
    began = asyncio.Event()

    async def endless(tell: Tell) -> str:
        began.set()
        await asyncio.sleep(3600)
        return "never"

    name = key("cancelled").rendered
    first = asyncio.create_task(relay.run(name, endless, Teller(lambda piece: None)))
    await began.wait()
    second = asyncio.create_task(relay.run(name, ours, Teller(lambda piece: None)))
    await asyncio.sleep(0.05)
    first.cancel()
    async with asyncio.timeout(5):
        outcome = await second
    assert isinstance(outcome, Computed)
    assert outcome.value == "ours"
    assert outcome.lease is not None


async def test_a_commit_without_a_reply_is_tried_again(redis: RedisServer, remote: Remote) -> None:
    """Redis stops while the value is being computed, and goes on a moment later: the others still get it."""
    relay = Relay(Leases(remote, envelope.STAMP))
    async with Remote(redis.url, timeout_seconds=0.1) as hasty:
        cache = TieredCache(LocalCache(1024 * 1024), hasty)

        async def talk(tell: Tell) -> str:
            tell("It was")
            await asyncio.sleep(0.5)
            redis.pause()
            asyncio.get_running_loop().call_later(0.2, redis.resume)
            return "all of it"

        heard: list[Any] = []
        found = await cache.stream(key("again"), talk, Life(60))
        assert isinstance(found, Streaming)
        whole = asyncio.create_task(found.value())
        outcome = await relay.run(key("again").rendered, ours, Teller(heard.append), wants_pieces=True)
        assert isinstance(outcome, Received)
        assert heard == ["It was"]
        assert await whole == "all of it"
        await cache.aclose()


@pytest.mark.parametrize("erased_by", ["the leader's worker", "another worker", "a purge"])
async def test_what_may_not_be_kept_is_told_whole_to_who_has_heard_its_beginning(
    remote: Remote, erased_by: str
) -> None:
    """A document is deleted while an answer is told: who hears it elsewhere asked before that, as the leader did."""
    wanted = keys.answer("acme", [("vs_1", 4, 4)], "p", "e", "g", [erased_by], {})
    erasure = Erasure(1, "acme", "vs_1", removed=5, replaced=0)
    leading, following = (TieredCache(LocalCache(1024 * 1024), remote) for _ in range(2))
    is_heard, computed = asyncio.Event(), 0

    async def talk(tell: Tell) -> str:
        nonlocal computed
        computed += 1
        tell("It was")
        await is_heard.wait()
        if erased_by == "a purge":
            leading.forget()
        elif erased_by == "another worker":
            assert await filing.erase(remote, erasure)
        else:
            leading.erase(erasure)
        return "all of it"

    first = await leading.stream(wanted, talk, Life(60))
    second = await following.stream(wanted, talk, Life(60))
    assert isinstance(first, Streaming)
    assert isinstance(second, Streaming)
    assert second.first == "It was"
    is_heard.set()
    assert await first.value() == await second.value() == "all of it"
    assert computed == 1
    await leading.aclose()
    assert await remote.get(wanted.rendered) is None
    await following.aclose()
