from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragagent.cache.flight import Flights, Tell
from ragagent.errors import Unavailable

pytestmark = pytest.mark.anyio


class Work:
    """Runs until released; counts its starts and its cancellations."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self, tell: Tell) -> str:
        self.started += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "value"


@pytest.fixture
async def work() -> Work:
    return Work()


@pytest.fixture
def flights() -> Flights:
    return Flights(grace_seconds=0.0)


async def asked(flights: Flights, work: Any) -> str:
    found: str = await flights.join("name", work).result()
    return found


def callers(flights: Flights, work: Work, number: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(asked(flights, work)) for _ in range(number)]


async def turns(number: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_fifty_callers_are_one_flight(flights: Flights, work: Work) -> None:
    waiting = callers(flights, work, 50)
    await turns()
    work.release.set()
    assert await asyncio.gather(*waiting) == ["value"] * 50
    assert work.started == 1
    assert len(flights) == 0


async def test_a_cancelled_caller_takes_nobody_along(flights: Flights, work: Work) -> None:
    first, second, third = callers(flights, work, 3)
    await turns()
    first.cancel()  # the one who started it
    await turns()
    work.release.set()
    assert await second == await third == "value"
    assert first.cancelled()
    assert work.cancelled == 0


async def test_when_the_last_caller_is_gone_the_flight_is_cancelled(flights: Flights, work: Work) -> None:
    waiting = callers(flights, work, 3)
    await turns()
    for task in waiting:
        task.cancel()
    await turns()
    assert work.cancelled == 1
    assert len(flights) == 0


async def test_who_comes_after_an_abandoned_flight_starts_another(flights: Flights, work: Work) -> None:
    (lonely,) = callers(flights, work, 1)
    await turns()
    lonely.cancel()
    await asyncio.wait([lonely])
    work.release.set()
    assert await flights.join("name", work).result() == "value"
    assert work.started == 2


async def test_a_flight_that_takes_long_to_end_takes_no_one_on(flights: Flights, work: Work) -> None:
    async def cling(tell: Tell) -> str:
        try:
            return await work(tell)
        finally:
            await work.release.wait()

    lonely = asyncio.create_task(asked(flights, cling))
    await turns()
    lonely.cancel()
    await asyncio.wait([lonely])
    late = callers(flights, work, 1)[0]
    await turns()
    work.release.set()
    assert await late == "value"
    assert work.started == 2


async def test_a_failure_reaches_everyone_and_is_forgotten(flights: Flights, work: Work) -> None:
    async def fail(tell: Tell) -> str:
        await work.release.wait()
        raise ValueError("no")

    waiting = [asyncio.create_task(asked(flights, fail)) for _ in range(3)]
    await turns()
    work.release.set()
    assert [type(result) for result in await asyncio.gather(*waiting, return_exceptions=True)] == [ValueError] * 3
    assert await flights.join("name", work).result() == "value"


async def test_a_flight_that_cancels_itself_does_not_look_like_a_cancelled_request(flights: Flights) -> None:
    async def give_up(tell: Tell) -> str:
        raise asyncio.CancelledError

    with pytest.raises(Unavailable):
        await flights.join("name", give_up).result()


async def test_a_forgotten_flight_arrives_but_takes_no_one_on(flights: Flights, work: Work) -> None:
    (early,) = callers(flights, work, 1)
    await turns()
    flights.forget("na")
    (late,) = callers(flights, work, 1)
    await turns()
    assert work.started == 2
    work.release.set()
    assert await early == await late == "value"
