"""What was kept while Redis was away is told without anybody asking, by another process if need be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from engine.conversations.test_conversations import ANN, say, turn
from engine.conversations.test_sharing import Hosts, eventually
from ragagent.engine.conversations.sharing import lock_name
from ragagent.store.database import Database
from ragagent.store.session_locks import SessionLocks
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


@pytest.fixture
async def hosts(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        yield Hosts(tmp_path, redis, stack)


async def kept_by_one_that_died(root: Path, redis: RedisServer) -> None:
    """Leave a turn on host one that nobody was told of, and nobody there to tell it."""
    async with AsyncExitStack() as stack:
        redis.kill()
        await say(await Hosts(root, redis, stack).worker("one"), "One?")
    redis.start()


async def test_a_process_tells_what_its_predecessor_could_not(hosts: Hosts, tmp_path: Path, redis: RedisServer) -> None:
    await kept_by_one_that_died(tmp_path, redis)
    assert hosts.copies() == 0
    await hosts.worker("one")

    async def is_told() -> bool:
        return hosts.copies() == 1

    await eventually(is_told)


async def test_a_turn_that_redis_died_under_is_told_although_its_session_rests(
    hosts: Hosts, redis: RedisServer
) -> None:
    one = await hosts.worker("one")
    async with one.session(ANN, "talk") as talk:
        redis.kill()
        await talk.append(turn("One?"))
    redis.start()

    async def is_told() -> bool:
        return hosts.copies() == 1

    await eventually(is_told)


async def test_what_is_told_is_no_longer_pending(hosts: Hosts, tmp_path: Path, redis: RedisServer) -> None:
    await kept_by_one_that_died(tmp_path, redis)
    await hosts.worker("one")
    with closing(Database.open(tmp_path / "one" / "ragagent.db")) as database:

        async def is_over() -> bool:
            return await database.view(lambda tx: not tx.execute("SELECT 1 FROM sessions WHERE is_pending").fetchone())

        await eventually(is_over)


async def test_a_session_that_is_in_use_is_told_by_whoever_uses_it(
    hosts: Hosts, tmp_path: Path, redis: RedisServer
) -> None:
    await kept_by_one_that_died(tmp_path, redis)
    held = SessionLocks(tmp_path / "one" / "sessions.lock").take(lock_name(ANN, "talk"))
    assert held is not None
    await hosts.worker("one")
    await asyncio.sleep(0.3)
    assert hosts.copies() == 0
    held.close()

    async def is_told() -> bool:
        return hosts.copies() == 1

    await eventually(is_told)
