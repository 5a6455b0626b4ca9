from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from ragagent.cache.flights.flight import Flight, Flights, Tell
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


# Pieces


class Talk:
    """Tells a piece each time it is told to go on; ends when it is told to."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.cancelled = asyncio.Event()

    async def __call__(self, tell: Tell) -> str:
        try:
            while (step := await self.steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                tell(step)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "all"

    def say(self, *steps: str | Exception | None) -> None:
        for step in steps:
            self.steps.put_nowait(step)


@pytest.fixture
async def talk() -> Talk:
    return Talk()


async def heard(flight: Flight[str]) -> list[str]:
    return [piece async for piece in flight.follow()]


async def test_who_comes_late_hears_it_from_the_first_piece_on(flights: Flights, talk: Talk) -> None:
    flight = flights.join("name", talk)
    early = asyncio.create_task(heard(flight))
    talk.say("a", "b")
    assert await flight.begun()
    await turns()
    late = asyncio.create_task(heard(flights.join("name", talk)))
    await turns()
    talk.say("c", None)
    assert await early == await late == ["a", "b", "c"]
    assert await flight.result() == "all"
    assert await heard(flight) == ["a", "b", "c"], "and still when it is over"
    assert [piece async for piece in flight.follow(1)] == ["b", "c"]


async def test_the_first_who_hangs_up_does_not_end_it_for_the_others(flights: Flights, talk: Talk) -> None:
    flight = flights.join("name", talk)
    first, second = (asyncio.create_task(heard(flight)) for _ in range(2))
    talk.say("a")
    await turns()
    first.cancel()
    await turns()
    talk.say("b", None)
    assert await second == ["a", "b"]


async def test_when_nobody_hears_any_more_it_is_cancelled_after_a_grace(talk: Talk) -> None:
    flights = Flights(grace_seconds=0.1)
    flight = flights.join("name", talk)
    talk.say("a")
    assert await flight.begun()
    listening = flight.follow()
    assert await anext(listening) == "a", "between two looks nobody is lost"
    await asyncio.sleep(0.15)
    assert not talk.cancelled.is_set()
    await listening.aclose()
    await turns()
    assert not talk.cancelled.is_set()
    assert flights.join("name", talk) is flight, "one may come in time"
    async with asyncio.timeout(5):
        await talk.cancelled.wait()
    assert flights.join("name", talk) is not flight
    await flights.aclose()


async def test_it_ends_for_its_hearers_when_it_fails_and_the_result_says_why(flights: Flights, talk: Talk) -> None:
    flight = flights.join("name", talk)
    hearing = asyncio.create_task(heard(flight))
    talk.say("a", ValueError("no"))
    assert await hearing == ["a"]
    with pytest.raises(ValueError, match="no"):
        await flight.result()


async def test_what_fails_before_it_says_anything_has_not_begun(flights: Flights, talk: Talk) -> None:
    talk.say(ValueError("no"))
    assert not await flights.join("name", talk).begun()


async def test_one_for_nobody_arrives(flights: Flights, work: Work) -> None:
    flights.unattended("name", work)
    flights.unattended("name", work)
    (caller,) = callers(flights, work, 1)
    await turns()
    caller.cancel()
    await turns()
    assert (work.started, work.cancelled) == (1, 0)
    work.release.set()
    await turns()
    assert len(flights) == 0


async def test_a_fast_teller_does_not_keep_a_canceller_away(flights: Flights) -> None:
    """anyio never cancels a task that is just being woken, which here is at every turn of the loop."""

    async def endless(tell: Tell) -> str:
        while True:
            tell("word")
            await asyncio.sleep(0)

    flight = flights.join("name", endless)
    with anyio.fail_after(5):
        with anyio.move_on_after(0.05) as scope:
            async for _ in flight.follow():
                pass
    assert scope.cancelled_caught
    await flights.aclose()


async def test_closing_cancels_what_is_up(flights: Flights, work: Work) -> None:
    flights.unattended("name", work)
    flights.alone(work)
    await turns()
    await flights.aclose()
    assert work.cancelled == 2
