"""Hosts that share sessions through a real Redis, which is flushed, paused, killed and comes back empty."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.conversations.test_conversations import ANN, said, say, turn
from ragagent import config
from ragagent.engine.conversations.conversations import Conversations
from ragagent.errors import Conflict
from ragagent.remote.connection import Remote
from ragagent.store.database import Database
from ragagent.store.session_locks import SessionLocks
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


class Hosts:
    """Hosts by name, each with a database of its own, and as many workers as a test opens there."""

    def __init__(self, root: Path, redis: RedisServer, stack: AsyncExitStack) -> None:
        self.redis = redis
        self._root = root
        self._stack = stack

    async def worker(self, host: str, **settings: Any) -> Conversations:
        directory = self._root / host
        directory.mkdir(exist_ok=True)
        database = Database.open(directory / "ragagent.db")
        self._stack.callback(database.close)
        remote = await self._stack.enter_async_context(Remote(self.redis.url, timeout_seconds=0.5))
        locks = SessionLocks(directory / "sessions.lock")
        opened = Conversations(database, locks, config.Session(**{"wait_seconds": 20.0, **settings}), remote)
        return await self._stack.enter_async_context(opened.running())

    def flush(self) -> None:
        with contextlib.closing(self.redis.admin()) as admin:
            admin.flushall()

    def copies(self) -> int:
        with contextlib.closing(self.redis.admin()) as admin:
            return len(admin.keys("rag:s:*:turns"))


@pytest.fixture
async def hosts(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        yield Hosts(tmp_path, redis, stack)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  No event tells of it: it happens in another process.
            await asyncio.sleep(0.02)


async def state(talks: Conversations) -> str:
    async with talks.session(ANN, "talk") as talk:
        return talk.state


async def test_hosts_go_on_with_each_others_sessions(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    for number, talks in enumerate((one, two, two, one)):
        await say(talks, str(number))
    assert await said(one) == await said(two) == ["0", "1", "2", "3"]
    assert await state(one) == "ok"


async def test_eight_turns_at_once_over_two_hosts_are_all_kept_in_order(hosts: Hosts) -> None:
    workers = [await hosts.worker(host) for host in ("one", "one", "two", "two")]
    seen: list[int] = []

    async def think(number: int) -> None:
        async with workers[number % 4].session(ANN, "talk") as talk:
            assert [each.messages[0].content for each in talk.turns] == [str(n) for n in range(len(talk.turns))]
            seen.append(len(talk.turns))
            await asyncio.sleep(0.01)
            await talk.append(turn(str(len(talk.turns))))
            assert talk.state == "ok"

    await asyncio.gather(*map(think, range(8)))
    assert seen == list(range(8))
    assert await said(workers[0]) == [str(number) for number in range(8)]


async def test_another_hosts_turn_is_waited_for_only_so_long(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two", wait_seconds=0.05)
    async with one.session(ANN, "talk"):
        with pytest.raises(Conflict) as raised:
            await say(two, "Me?")
    assert raised.value.code == "session_busy"
    await say(two, "And now?")


async def test_a_retry_on_another_host_gets_the_turn(hosts: Hosts) -> None:
    first = await say(await hosts.worker("one"), "One?", "key-1", b"body")
    assert await say(await hosts.worker("two"), "One?", "key-1", b"body") == first


@pytest.mark.parametrize("fault", ["flush", "kill"])
async def test_a_redis_that_lost_everything_is_told_again(hosts: Hosts, fault: str) -> None:
    one = await hosts.worker("one")
    for text in ("One?", "Two?"):
        await say(one, text)
    if fault == "flush":
        hosts.flush()
    else:
        hosts.redis.kill()
        hosts.redis.start()
        await eventually(lambda: is_together(one))
    assert await said(one) == ["One?", "Two?"]
    await say(one, "Three?")
    assert await said(await hosts.worker("two")) == ["One?", "Two?", "Three?"]


async def is_together(talks: Conversations) -> bool:
    return await state(talks) == "ok"


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_while_redis_is_away_a_host_goes_on_and_tells_it_later_once(hosts: Hosts, fault: str) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    await say(one, "One?")
    async with one.session(ANN, "talk") as talk:
        getattr(hosts.redis, fault)()  # in the middle of a turn
        await talk.append(turn("Two?"))
        assert talk.state == "degraded"
    await say(one, "Three?", "key-3", b"body")
    await say(one, "Three?", "key-3", b"body")
    assert await state(one) == "degraded"
    if fault == "kill":
        hosts.redis.start()
    else:
        hosts.redis.resume()

    async def is_told() -> bool:
        return await said(two) == ["One?", "Two?", "Three?"]

    if fault == "kill":  # Nobody asks on host one: it tells by itself.
        await eventually(is_told)
    else:
        await eventually(lambda: is_together(one))
        await eventually(is_told)
    await say(two, "Four?")
    assert await said(one) == ["One?", "Two?", "Three?", "Four?"]


async def test_what_two_hosts_said_without_knowing_of_each_other_is_kept_and_reported(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    await say(one, "One?")
    assert await said(two) == ["One?"]
    hosts.redis.kill()
    on_one, on_two = await say(one, "Mine?"), await say(two, "Yours?")
    hosts.redis.start()
    await eventually(lambda: is_settled(one))
    await eventually(lambda: is_settled(two))
    line = await said(one)
    assert line == await said(two)
    assert line in (["One?", "Mine?"], ["One?", "Yours?"])
    loser, lost = (two, on_two) if line[1] == "Mine?" else (one, on_one)
    assert [each.messages[0].content for each in await loser.chain(ANN, lost.id)] == ["One?", lost.messages[0].content]
    assert await state(loser) == "branched"
    await say(loser, "Two?")
    assert await state(loser) == "ok"


async def test_a_retry_on_both_sides_of_a_split_is_one_turn_in_the_line(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    hosts.redis.kill()
    for talks in (one, two):  # The reply of the first got lost, and the retry came to the other host.
        await say(talks, "One?", "key-1", b"body")
    hosts.redis.start()
    for talks in (one, two):
        await eventually(lambda talks=talks: is_settled(talks))  # type: ignore[misc]
    assert await said(one) == await said(two) == ["One?"]
    assert await say(one, "One?", "key-1", b"body") == await say(two, "One?", "key-1", b"body")


async def is_settled(talks: Conversations) -> bool:
    return await state(talks) != "degraded"


async def test_a_deleted_turn_is_gone_on_every_host(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    first = await say(one, "Secret?")
    await say(one, "Two?")
    assert await said(two) == ["Secret?", "Two?"]
    await one.delete(ANN, first.id)
    assert await said(one) == await said(two) == ["Two?"]
    await say(two, "Three?")
    assert await said(one) == ["Two?", "Three?"]


async def test_a_session_that_is_forgotten_is_forgotten_on_every_host(hosts: Hosts) -> None:
    one, two = await hosts.worker("one"), await hosts.worker("two")
    for number in range(3):
        await say(one, str(number))
    assert len(await said(two)) == 3
    await one.forget(ANN, "talk")
    assert await said(two) == await said(one) == []
    await say(two, "Three?")
    assert await said(one) == ["Three?"]


async def test_a_copy_that_makes_no_sense_is_dropped_and_told_again(hosts: Hosts) -> None:
    one = await hosts.worker("one")
    await say(one, "One?")
    with contextlib.closing(hosts.redis.admin()) as admin:
        (key,) = admin.keys("rag:s:*:turns")
        admin.hset(key, "1", b"resp_forged\n{}")
    assert await said(one) == ["One?"]
    assert await said(await hosts.worker("two")) == ["One?"]


async def test_with_sqlite_alone_redis_holds_nothing(hosts: Hosts) -> None:
    await say(await hosts.worker("one", store="sqlite"), "One?")
    assert hosts.copies() == 0
