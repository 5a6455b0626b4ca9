"""An answer as server-sent events, from the model's first piece on."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ragagent.engine.answering.answer import Reply
from ragagent.engine.answering.recorded import Pieces
from ragagent.types import Answer


async def begun(opening: Awaitable[Reply]) -> tuple[Reply, str | Answer]:
    """Return the reply and its first piece. Before the status line: who refuses or hangs still becomes a status."""
    reply = await opening
    return reply, await anext(reply.pieces)


async def after(first: str | Answer, rest: Pieces) -> Pieces:
    yield first
    async for piece in rest:
        yield piece


def event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(StreamingResponse):
    """Server-sent events. When the client has gone, what they are made from is closed, and the model stops talking.

    `held` is what the stream needs to its end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        pieces: Pieces,
        headers: Mapping[str, str],
        held: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        # For proxies that would hold the stream back until it is whole.
        super().__init__(events, headers={**headers, "x-accel-buffering": "no"})
        self._events = events
        self._pieces = pieces
        self._held = held or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Both: the events close their pieces only once they have begun.
        async with self._held, aclosing(self._pieces), aclosing(self._events):
            await super().__call__(scope, receive, send)
