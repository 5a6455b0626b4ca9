"""Random talks over two hosts while Redis loses its memory, dies and returns: no acknowledged turn is ever lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.conversations.test_conversations import ANN, said, turn
from engine.conversations.test_sharing import Hosts, eventually, is_settled
from ragagent.engine.conversations.conversations import Conversations
from ragagent.errors import Conflict
from ragagent.types import Turn
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


@pytest.fixture
async def hosts(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        yield Hosts(tmp_path, redis, stack)


class Model:
    """What clients were told: each turn with what was said before it, by the host that told so."""

    def __init__(self, workers: dict[str, list[Conversations]], dice: random.Random) -> None:
        self.workers = workers
        self.dice = dice
        self.told: dict[str, list[tuple[Turn, list[str]]]] = {host: [] for host in workers}

    async def say(self, text: str) -> None:
        host = self.dice.choice(list(self.workers))
        talks = self.dice.choice(self.workers[host])
        try:
            async with talks.session(ANN, "talk", key=text) as talk:
                before = [each.id for each in talk.turns]
                await asyncio.sleep(self.dice.choice((0, 0, 0.01)))
                one = turn(text)
                await talk.append(one)
                self.told[host].append((one, [*before, one.id]))
        except Conflict as exc:
            assert exc.code == "session_busy"

    async def hurt(self, hosts: Hosts) -> None:
        fault = self.dice.choice(("flush", "kill", "start"))
        is_up = hosts.redis.process is not None and hosts.redis.process.poll() is None
        if fault == "kill" and is_up:
            hosts.redis.kill()
        elif fault == "start" and not is_up:
            await asyncio.to_thread(hosts.redis.start)
        elif fault == "flush" and is_up:
            hosts.flush()


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 40))])
async def test_whatever_happens_each_turn_stays_where_its_client_was_told(hosts: Hosts, seed: int) -> None:
    dice = random.Random(seed)
    wait = {"wait_seconds": 1.0}
    workers = {host: [await hosts.worker(host, **wait), await hosts.worker(host, **wait)] for host in ("one", "two")}
    model = Model(workers, dice)
    for number in range(12):
        await asyncio.gather(*(model.say(f"{number}-{each}") for each in range(dice.randint(1, 3))))
        if dice.random() < 0.4:
            await model.hurt(hosts)
    if hosts.redis.process is None or hosts.redis.process.poll() is not None:
        hosts.redis.start()
    for talks in (each for some in workers.values() for each in some):
        await eventually(lambda talks=talks: is_settled(talks))  # type: ignore[misc]
    line = await said(workers["one"][0])
    assert line == await said(workers["two"][0])
    assert len(line) == len(set(line))
    for host, told in model.told.items():
        for one, seen in told:  # in the line or beside it, after exactly what it was answered from
            assert [each.id for each in await workers[host][0].chain(ANN, one.id)] == seen
