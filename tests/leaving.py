"""Clients that hang up on the application, at a point that the test chooses."""

from __future__ import annotations

import json
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from fakes import Endless


class Leaving:
    """A client that hangs up: as soon as the model has begun, or after so many messages of the answer.

    `slow`: the message it is sent then never ends, as when a socket is full.
    """

    def __init__(self, generator: Endless, after: int | None, *, slow: bool = False) -> None:
        self._generator = generator
        self._after = after
        self._slow = slow
        self._left = anyio.Event()
        self._bodies = [b""]
        self.received: list[Message] = []

    async def post(self, app: ASGIApp, path: str, body: dict[str, Any]) -> None:
        self._bodies = [json.dumps(body).encode()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},  # what Hypercorn says
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        with anyio.fail_after(10):
            await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._bodies:
            return {"type": "http.request", "body": self._bodies.pop(), "more_body": False}
        await (self._generator.began if self._after is None else self._left).wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.received.append(message)
        if len(self.received) == self._after:
            self._left.set()
            if self._slow:
                await anyio.sleep_forever()
