"""Nobody works for a client that has hung up.

Servers do not cancel an application whose client leaves; they tell it, if it listens. Starlette listens while a
response streams. This listens before there is one, when a model may think for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` returns. Cancels it and raises ClientDisconnect when the client leaves before.

    For requests whose body has been read: what their connection says next is that it ends. `work` runs in the caller's
    own task, so that what it opens may be closed here.
    """
    with anyio.CancelScope() as scope:
        watch = asyncio.create_task(_gone(request.receive, scope), name="hang-up watch")
        try:
            result = await work
        finally:
            watch.cancel()
        if not watch.done():
            return result
    raise ClientDisconnect


async def _gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
