"""The limits in Redis: exact over processes whose clocks differ, small, gone when they have run out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from crowd import crowd
from ragagent.limits.gcra import MAX_LEVEL, MINUTE, SECOND, Demand, Seat, Taken
from ragagent.limits.shared import Shared
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

CHEAP = Demand("rag:l:{a}:cheap", SECOND, MINUTE)
DEAR = Demand("rag:l:{a}:dear", MINUTE, MINUTE)
NOTHING = (0, False)


@pytest.fixture
async def shared(redis: RedisServer) -> AsyncIterator[Shared]:
    async with Remote(redis.url, timeout_seconds=2) as remote:
        yield Shared(remote)


@pytest.fixture
def admin(redis: RedisServer) -> Iterator[redis_py.Redis]:
    with contextlib.closing(redis.admin()) as admin:
        yield admin


def seat(holder: str, limit: int = 1, key: str = "rag:l:{a}:seats") -> Seat:
    return Seat(key, limit, holder)


async def take(shared: Shared, *demands: Demand, seats: tuple[Seat, ...] = (), lease: int = MINUTE) -> Taken:
    taken = await shared.take(demands, seats, lease, [NOTHING] * len(demands))
    assert isinstance(taken, Taken)
    return taken


def seconds(levels: object) -> list[int]:
    assert isinstance(levels, list)
    return [round(level / SECOND) for level in levels]


async def test_what_is_refused_takes_nothing_of_anything(shared: Shared) -> None:
    assert (await take(shared, CHEAP, DEAR, seats=(seat("me"),))).is_allowed
    refused = await take(shared, CHEAP, DEAR, seats=(seat("me", key="rag:l:{a}:others"),))
    assert not refused.is_allowed
    assert (seconds(refused.levels), refused.held) == ([1, 60], [0])
    refused = await take(shared, CHEAP, seats=(seat("another"),))
    assert (refused.is_allowed, seconds(refused.levels), refused.held) == (False, [1], [1])
    assert seconds((await take(shared, CHEAP)).levels) == [1]


async def test_several_seats_each_have_their_own_limit(shared: Shared) -> None:
    both = (seat("a", 3), seat("a", 2, "rag:l:{a}:tenant"))
    assert (await take(shared, CHEAP, CHEAP, seats=both)).is_allowed
    both = (seat("b", 3), seat("b", 2, "rag:l:{a}:tenant"))
    assert (await take(shared, seats=both)).held == [1, 1]
    both = (seat("c", 3), seat("c", 2, "rag:l:{a}:tenant"))
    refused = await take(shared, seats=both)
    assert (refused.is_allowed, refused.held) == (False, [2, 2])


async def test_what_was_estimated_is_settled_and_a_seat_given_up(shared: Shared) -> None:
    await take(shared, DEAR, seats=(seat("me"),))
    back = Demand(DEAR.key, -50 * SECOND, MINUTE)
    assert seconds(await shared.add([back], [seat("me")], [NOTHING])) == [10]
    assert (await take(shared, seats=(seat("another"),))).is_allowed
    assert seconds(await shared.add([back], [], [NOTHING])) == [0]
    assert seconds(await shared.add([Demand(DEAR.key, MAX_LEVEL * 2, MINUTE)], [], [NOTHING])) == [2 * 24 * 3600]
    assert seconds((await take(shared, DEAR)).levels) == [24 * 3600], "no debt lasts longer than a day"


async def test_a_lease_that_nobody_renews_ends(shared: Shared) -> None:
    await take(shared, seats=(seat("me"),), lease=SECOND // 10)
    await shared.hold([seat("me")], SECOND // 2)
    await asyncio.sleep(0.15)
    assert not (await take(shared, seats=(seat("another"),))).is_allowed
    await asyncio.sleep(0.4)
    assert (await take(shared, seats=(seat("another"),))).is_allowed


async def test_a_host_goes_on_from_what_it_decided_itself_and_from_what_redis_has_lost(shared: Shared) -> None:
    known, decided = (30 * SECOND, False), (30 * SECOND, True)
    lost = await shared.take([CHEAP], [], 0, [known])
    assert isinstance(lost, Taken)
    assert seconds(lost.levels) == [30], "Redis had nothing, as after a restart"
    again = await shared.take([CHEAP], [], 0, [(50 * SECOND, False)])
    assert isinstance(again, Taken)
    assert seconds(again.levels) == [31], "what Redis has is newer than what the host knew"
    ours = await shared.take([CHEAP], [], 0, [(50 * SECOND, True)])
    assert isinstance(ours, Taken)
    assert seconds(ours.levels) == [50], "what was decided without Redis counts"
    fewer = await shared.take([CHEAP], [], 0, [decided])
    assert isinstance(fewer, Taken)
    assert seconds(fewer.levels) == [51]
    assert seconds(await shared.add([Demand(CHEAP.key, -SECOND, MINUTE)], [], [(58 * SECOND, True)])) == [57]


@pytest.mark.parametrize("is_ours", [False, True])
async def test_what_a_host_knew_stays_known_when_the_request_is_refused(shared: Shared, is_ours: bool) -> None:
    if is_ours:
        await take(shared, CHEAP)
    knew = Demand(CHEAP.key, MINUTE, MINUTE)
    for known in ((30 * SECOND, is_ours), (30 * SECOND, False), NOTHING):
        refused = await shared.take([knew], [], 0, [known])
        assert isinstance(refused, Taken)
        assert (refused.is_allowed, seconds(refused.levels)) == (False, [30])


async def test_a_key_is_small_and_goes_with_its_time(shared: Shared, admin: redis_py.Redis) -> None:
    demand = Demand("rag:l:{0123456789abcdef}:0123456789ab:requests", SECOND, MINUTE)
    place = seat("0123456789abcdef", key="rag:l:{0123456789abcdef}:0123456789ab:answers")
    await take(shared, demand, seats=(place,))
    for key in (demand.key, place.key):
        assert (admin.memory_usage(key) or 0) <= 200
        assert 0 < admin.pttl(key) <= 60_000
    await shared.add([], [place], [])
    assert not admin.exists(place.key)


@pytest.mark.parametrize("junk", [b"", b"x", b"1e999", b"nan", b"-5"])
async def test_what_is_no_number_counts_as_nothing(shared: Shared, admin: redis_py.Redis, junk: bytes) -> None:
    admin.set(CHEAP.key, junk)
    taken = await shared.take([CHEAP], [], 0, [NOTHING])
    assert isinstance(taken, Taken)
    assert (taken.is_allowed, seconds(taken.levels)) == (True, [0])


async def test_without_redis_there_is_no_reply(shared: Shared, redis: RedisServer) -> None:
    redis.kill()
    assert isinstance(await shared.take([CHEAP], [seat("me")], MINUTE, [NOTHING]), NoReply)
    assert isinstance(await shared.add([CHEAP], [], [NOTHING]), NoReply)
    await shared.hold([seat("me")], MINUTE)


def test_four_processes_whose_clocks_differ_are_allowed_exactly_what_there_is(
    redis: RedisServer, tmp_path: Path
) -> None:
    allowed = crowd("redis", redis.url, tmp_path, skews=(0, 30, -30, 3600))
    assert sum(allowed) == 100
    assert sum(count > 0 for count in allowed) > 1, "they did not run at the same time"
