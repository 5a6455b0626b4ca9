"""A deadline: met once, at the last moment that was set, and never after it was cleared or closed."""

from __future__ import annotations

import asyncio

import pytest

from ragagent.edge.deadline import Deadline

pytestmark = pytest.mark.anyio


class Bell:
    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.times = 0

    def ring(self) -> None:
        self.times += 1
        self.rung.set()


@pytest.mark.parametrize("usual_seconds", [0.01, 60.0])
async def test_expires_whether_it_is_near_or_far(usual_seconds: float) -> None:
    bell = Bell()
    deadline = Deadline(bell.ring, usual_seconds)
    deadline.set(0.05)
    await asyncio.wait_for(bell.rung.wait(), 10)
    await asyncio.sleep(0.05)
    assert bell.times == 1
    deadline.close()


async def test_may_be_set_again_from_what_it_calls() -> None:
    times = 0

    def again() -> None:
        nonlocal times
        times += 1
        deadline.set(0.01)

    deadline = Deadline(again, 60.0)
    deadline.set(0.01)
    async with asyncio.timeout(10):
        while times < 3:  # noqa: ASYNC110 - it counts, and sets no event
            await asyncio.sleep(0.005)
    deadline.close()


async def test_moved_deadline_is_not_met_at_its_old_time() -> None:
    bell, loop = Bell(), asyncio.get_running_loop()
    deadline = Deadline(bell.ring, 0.02)
    last = loop.time()
    for _ in range(5):
        deadline.set(0.3)
        last = loop.time()
        await asyncio.sleep(0.05)
    await asyncio.wait_for(bell.rung.wait(), 10)
    assert (bell.times, loop.time() - last > 0.29) == (1, True)
    deadline.close()


@pytest.mark.parametrize("end", ["clear", "close"])
async def test_is_not_met_when_it_is_over(end: str) -> None:
    bell = Bell()
    deadline = Deadline(bell.ring, 0.02)
    deadline.set(0.02)
    getattr(deadline, end)()
    await asyncio.sleep(0.1)
    assert bell.times == 0
    if end == "clear":
        deadline.close()
