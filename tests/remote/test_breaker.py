from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ragagent.remote.breaker import FAILURES, SAMPLE, Breaker

pytestmark = pytest.mark.anyio
DOWN = ConnectionError("down")


class Server:
    """Answers while it is up; wakes who waits for its being asked."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked = 0
        self.heard = asyncio.Event()

    async def ping(self) -> None:
        self.asked += 1
        self.heard.set()
        if not self.is_up:
            raise DOWN


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
def changes() -> list[Exception | None]:
    return []


@pytest.fixture
async def breaker(server: Server, changes: list[Exception | None]) -> AsyncIterator[Breaker]:
    breaker = Breaker(server.ping, changes.append)
    yield breaker
    await breaker.aclose()


async def until_closed(breaker: Breaker) -> None:
    async with asyncio.timeout(5):
        while not breaker.allows():  # noqa: ASYNC110  Asking is what the breaker's users do.
            await asyncio.sleep(0.01)


async def test_it_is_born_open_and_the_first_call_makes_it_ask(breaker: Breaker, server: Server) -> None:
    assert breaker.is_open
    assert not breaker.allows()
    await until_closed(breaker)
    assert server.asked == 1


async def test_three_failures_in_a_row_open_it(breaker: Breaker, changes: list[Exception | None]) -> None:
    await breaker.check()
    for _ in range(FAILURES - 1):
        breaker.failed(DOWN)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed(DOWN)
    assert breaker.allows()
    breaker.failed(DOWN)
    assert not breaker.allows()
    assert changes == [None, DOWN]


async def test_a_server_that_answers_every_other_call_opens_it(breaker: Breaker) -> None:
    await breaker.check()
    for _ in range(SAMPLE // 2 - 1):
        breaker.succeeded()
        breaker.failed(DOWN)
    assert breaker.allows()  # too few to judge by
    breaker.succeeded()
    breaker.failed(DOWN)
    assert not breaker.allows()


async def test_a_failure_now_and_then_does_not(breaker: Breaker) -> None:
    await breaker.check()
    for _ in range(SAMPLE * 3):
        breaker.succeeded()
        breaker.succeeded()
        breaker.failed(DOWN)
    assert breaker.allows()


async def test_only_the_probe_closes_it(breaker: Breaker, server: Server) -> None:
    await breaker.check()
    for _ in range(FAILURES):
        breaker.failed(DOWN)
    breaker.succeeded()  # a reply that was on its way
    assert breaker.is_open
    await until_closed(breaker)
    assert server.asked == 2


async def test_it_keeps_asking_and_tells_of_each_change_once(
    breaker: Breaker, server: Server, changes: list[Exception | None]
) -> None:
    server.is_up = False
    assert not await breaker.check()
    assert not breaker.allows()
    async with asyncio.timeout(5):
        while server.asked < 4:
            server.heard.clear()
            await server.heard.wait()
    server.is_up = True
    await until_closed(breaker)
    assert changes == [DOWN, None]


async def test_many_callers_share_one_probe(breaker: Breaker, server: Server) -> None:
    for _ in range(50):
        assert not breaker.allows()
    await until_closed(breaker)
    assert server.asked == 1


async def test_closing_ends_the_probe(breaker: Breaker, server: Server) -> None:
    server.is_up = False
    breaker.allows()
    await server.heard.wait()
    await breaker.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "breaker probe"]
