"""The set of open connections: counted, waited for, and changed while it is walked."""

from __future__ import annotations

import asyncio
import time

import pytest

from ragagent.edge.connections import Connections

pytestmark = pytest.mark.anyio


class Line:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        connections.add(self)

    def dismiss(self, *, busy_too: bool) -> bool:
        return False

    async def finish(self) -> None:
        self._connections.discard(self)

    def abort(self) -> None:
        self._connections.discard(self)


async def test_none_are_gone_at_once() -> None:
    begun = time.monotonic()
    await Connections().gone(30)
    assert time.monotonic() - begun < 10


async def test_wait_ends_with_the_last() -> None:
    connections = Connections()
    first, second = Line(connections), Line(connections)
    waiting = asyncio.create_task(connections.gone(30))
    await first.finish()
    await asyncio.sleep(0.01)
    assert (waiting.done(), len(connections)) == (False, 1)
    await second.finish()
    await asyncio.wait_for(waiting, 10)


async def test_wait_ends_with_its_time() -> None:
    connections = Connections()
    Line(connections)
    await asyncio.wait_for(connections.gone(0.01), 10)
    assert len(connections) == 1


async def test_connections_may_end_while_they_are_walked() -> None:
    connections = Connections()
    for _ in range(3):
        Line(connections)
    for connection in connections:
        connection.abort()
    assert len(connections) == 0
