"""The scripts, on a real Redis: adding by compare-and-set, bounds, leases, and a copy that may vanish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragagent.remote.connection import NoReply, Remote
from ragagent.remote.sessions import Element, Here, SharedSessions
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

TALK = "tenant-a\0*\0talk"


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    # Generous: the machine may be busy, and a slow reply is none.
    async with Remote(redis.url, timeout_seconds=5.0) as opened:
        yield opened


def of_host(remote: Remote, identity: str = "host-1", **limits: Any) -> SharedSessions:
    return SharedSessions(remote, identity, **{"idle_seconds": 60.0, "max_turns": 100, "max_bytes": 10**6, **limits})


@pytest.fixture
def shared(remote: Remote) -> SharedSessions:
    return of_host(remote)


def turn(name: str, body: bytes = b"{}") -> Element:
    return Element(name, body)


async def filled(shared: SharedSessions, *ids: str, base: int = 0, head: str = "") -> None:
    for number, name in enumerate(ids):
        assert await shared.append(TALK, base + number, head, [turn(name)]) == "kept"
        head = name


async def ids(shared: SharedSessions, position: int = 0, head: str = "") -> list[str]:
    found = await shared.enter(TALK, "", position, head)
    assert isinstance(found, Here)
    return [element.id for element in found.elements]


async def test_turns_are_added_after_the_last_one_only(shared: SharedSessions) -> None:
    assert await shared.enter(TALK, "", 0, "") == "absent"
    await filled(shared, "a", "b")
    assert await shared.append(TALK, 1, "a", [turn("b2")]) == "moved"
    assert await shared.append(TALK, 2, "b2", [turn("c")]) == "moved"
    assert await shared.append(TALK, 3, "b", [turn("c")]) == "moved"
    assert await shared.append(TALK, 0, "", [turn("first")]) == "moved"
    assert await ids(shared) == ["a", "b"]


async def test_adding_twice_adds_once(shared: SharedSessions) -> None:
    await filled(shared, "a", "b")
    assert await shared.append(TALK, 1, "a", [turn("b")]) == "kept"
    assert await shared.append(TALK, 0, "", [turn("a"), turn("b")]) == "kept"
    assert await ids(shared) == ["a", "b"]


async def test_of_many_that_add_at_once_one_is_first(shared: SharedSessions) -> None:
    await filled(shared, "a")
    added = await asyncio.gather(*(shared.append(TALK, 1, "a", [turn(f"t{number}")]) for number in range(8)))
    assert sorted(map(str, added)) == ["kept", *["moved"] * 7]
    assert len(await ids(shared)) == 2


async def test_a_host_hears_only_what_it_does_not_know(shared: SharedSessions) -> None:
    await filled(shared, "a", "b", "c")
    found = await shared.enter(TALK, "", 2, "b")
    assert found == Here(3, 3, (), (turn("c"),))
    assert await ids(shared, 3, "c") == []
    assert await ids(shared, 2, "other") == ["a", "b", "c"]
    assert await ids(shared, 7, "ahead") == ["a", "b", "c"]


async def test_what_vanished_is_told_again_whole(shared: SharedSessions) -> None:
    assert await shared.append(TALK, 2, "b", [turn("c")]) == "absent"
    assert await shared.append(TALK, 2, "b", [turn("c"), turn("d")], is_whole=True) == "kept"
    found = await shared.enter(TALK, "", 0, "")
    assert found == Here(4, 3, (), (turn("c"), turn("d")))
    await shared.drop(TALK)
    assert await shared.enter(TALK, "", 0, "") == "absent"


async def test_bounds_hold_and_the_last_turn_stays(remote: Remote) -> None:
    shared = of_host(remote, max_turns=3)
    await filled(shared, *"abcde")
    assert await ids(shared) == ["c", "d", "e"]
    small = of_host(remote, max_bytes=100)
    assert await small.append(TALK, 5, "e", [turn("f", b"x" * 91)]) == "kept"
    assert await ids(small) == ["e", "f"]  # 93 and 4 bytes with their ids
    assert await small.append(TALK, 6, "f", [turn("g", b"x" * 500)]) == "kept"
    assert await ids(small) == ["g"]


async def test_a_session_expires_after_its_last_turn(remote: Remote, redis: RedisServer) -> None:
    await filled(of_host(remote, idle_seconds=1000.0), "a")
    with contextlib.closing(redis.admin()) as admin:
        (key,) = admin.keys("rag:s:*")
        assert 990_000 < admin.pttl(key) <= 1_000_000
        await filled(of_host(remote, idle_seconds=2000.0), "b", base=1, head="a")
        assert admin.pttl(key) > 1_990_000


async def test_one_host_at_a_time_holds_a_session(remote: Remote) -> None:
    one, two = of_host(remote), of_host(remote, "host-2")
    first, second = one.token(), two.token()
    assert await one.enter(TALK, first, 0, "") == "absent"
    assert await two.enter(TALK, second, 0, "") == "busy"
    assert await two.enter(TALK, "", 0, "") == "absent"  # Who only looks needs no lease.
    await two.leave(TALK, second)
    assert await two.enter(TALK, second, 0, "") == "busy"
    await one.leave(TALK, first)
    assert await two.enter(TALK, second, 0, "") == "absent"


async def test_a_process_that_died_is_succeeded_at_once_on_its_own_host(remote: Remote) -> None:
    dead, alive = of_host(remote).token(), of_host(remote).token()
    assert await of_host(remote).enter(TALK, dead, 0, "") == "absent"
    assert await of_host(remote).enter(TALK, alive, 0, "") == "absent"
    await of_host(remote).leave(TALK, dead)
    assert await of_host(remote, "host-2").enter(TALK, of_host(remote, "host-2").token(), 0, "") == "busy"


async def test_a_lease_lives_as_long_as_it_is_renewed(shared: SharedSessions, redis: RedisServer) -> None:
    token = shared.token()
    await shared.enter(TALK, token, 0, "")
    with contextlib.closing(redis.admin()) as admin:
        (key,) = admin.keys("rag:s:*:busy")
        admin.pexpire(key, 1000)
        await shared.renew(TALK, token)
        assert admin.pttl(key) > 5000
        await shared.renew(TALK, shared.token())
        admin.delete(key)
        await shared.renew(TALK, token)
        assert not admin.exists(key)


async def test_a_deleted_turn_is_gone_and_its_id_is_told(shared: SharedSessions, redis: RedisServer) -> None:
    assert await shared.append(TALK, 0, "", [turn("a", b"secret"), turn("b")]) == "kept"
    await shared.blank(TALK, 1, turn("a", b"gone"))
    await shared.blank(TALK, 2, turn("other", b"gone"))
    found = await shared.enter(TALK, "", 0, "")
    assert found == Here(2, 1, ("a",), (turn("a", b"gone"), turn("b")))
    with contextlib.closing(redis.admin()) as admin:
        (key,) = admin.keys("rag:s:*")
        held: dict[bytes, bytes] = admin.hgetall(key)  # type: ignore[assignment]  # It says str as well.
        assert b"secret" not in b"".join(held.values())
        assert int(held[b"b"]) == len(held[b"1"]) + len(held[b"2"])


async def test_names_of_clients_do_not_reach_redis(shared: SharedSessions, redis: RedisServer) -> None:
    await filled(shared, "a")
    with contextlib.closing(redis.admin()) as admin:
        assert all(b"talk" not in key and b"tenant" not in key for key in admin.keys("*"))


async def test_without_redis_there_is_no_reply(remote: Remote, redis: RedisServer) -> None:
    shared = of_host(remote)
    redis.kill()
    assert isinstance(await shared.enter(TALK, shared.token(), 0, ""), NoReply)
    assert isinstance(await shared.append(TALK, 0, "", [turn("a")]), NoReply)
