from __future__ import annotations

import asyncio

import pytest

from ragagent.remote import slots
from ragagent.remote.slots import Slots

pytestmark = pytest.mark.anyio


async def test_who_comes_first_is_served_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 30.0)
    line, served = Slots(1), list[int]()
    assert await line.take()

    async def wait(number: int) -> None:
        assert await line.take()
        served.append(number)
        line.give()
        # Whoever gives a slot back and wants it again stands behind those who wait.
        assert await line.take()
        served.append(number)
        line.give()

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert line.waiting == 3
    line.give()
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 0, 1, 2]
    assert line.waiting == 0


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 0.001)
    line = Slots(1)
    assert await line.take()
    assert not await line.take()
    line.give()
    assert await line.take()


async def test_who_leaves_the_line_takes_no_slot_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 30.0)
    line = Slots(1)
    assert await line.take()
    waiting = asyncio.create_task(line.take())
    await asyncio.sleep(0)
    waiting.cancel()
    line.give()
    await asyncio.gather(waiting, return_exceptions=True)
    assert line.waiting == 0
    assert await line.take()
