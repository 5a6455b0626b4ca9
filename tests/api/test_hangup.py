"""Work ends with its client, and only then."""

from __future__ import annotations

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from ragagent.api.hangup import while_connected
from ragagent.errors import Unavailable

pytestmark = pytest.mark.anyio


class Client:
    """The far end of a request whose body is there."""

    def __init__(self) -> None:
        self.left = anyio.Event()
        self.listeners = 0
        self.request = Request({"type": "http", "headers": []}, self.receive)

    async def receive(self) -> Message:
        self.listeners += 1
        try:
            await self.left.wait()
        finally:
            self.listeners -= 1
        return {"type": "http.disconnect"}


@pytest.fixture
def client() -> Client:
    return Client()


async def test_the_result_comes_through(client: Client) -> None:
    async def work() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    assert await while_connected(client.request, work()) == 7


async def test_an_error_comes_through_as_it_is(client: Client) -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        raise Unavailable("Not now.")

    with pytest.raises(Unavailable, match="Not now"):
        await while_connected(client.request, work())


async def test_work_is_cancelled_when_the_client_leaves(client: Client) -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        client.left.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled = True

    with anyio.fail_after(5), pytest.raises(ClientDisconnect):
        await while_connected(client.request, work())
    assert cancelled


async def test_a_result_that_nobody_waits_for_is_none(client: Client) -> None:
    """The server says only once that the client has left: whoever hears it must act on it."""

    async def work() -> int:
        client.left.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        return 7

    with pytest.raises(ClientDisconnect):
        await while_connected(client.request, work())


async def test_afterwards_nobody_listens_any_more(client: Client) -> None:
    await while_connected(client.request, anyio.lowlevel.checkpoint())
    with anyio.fail_after(5):
        while client.listeners:
            await anyio.lowlevel.checkpoint()


async def test_it_is_not_taken_for_a_hang_up_when_the_caller_is_cancelled(client: Client) -> None:
    with anyio.move_on_after(0.01) as scope:
        await while_connected(client.request, anyio.sleep_forever())
    assert scope.cancelled_caught
