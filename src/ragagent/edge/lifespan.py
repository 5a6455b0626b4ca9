"""The ASGI lifespan: start the application before the first connection, end it after the last.

Ours rather than Hypercorn's, which goes on "without Lifespan support" when the application raises: a worker that could
not open its index must not serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from ragagent.edge.guard import App, Message
from ragagent.errors import Unavailable

logger = logging.getLogger("ragagent.edge")


class Lifespan:
    """Drives one application through startup and shutdown. `state` is what it hands to every request."""

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Return once the application has started; raises Unavailable with the reason when it could not."""
        self._task = asyncio.create_task(self._run(), name="lifespan")
        started = asyncio.create_task(self._started.wait())
        self._to_app.put_nowait({"type": "lifespan.startup"})
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is None and self._started.is_set():
            return
        started.cancel()
        # Starlette reports the failure, then raises its cause: wait for the cause, it makes the better sentence.
        await asyncio.wait({self._task}, timeout=1)
        cause = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        if cause is not None:
            raise Unavailable(f"The application could not start: {type(cause).__name__}: {cause}") from cause
        raise Unavailable(f"The application could not start: {self._failure or 'it left without a word'}")

    async def shutdown(self, timeout: float) -> None:
        """End the application. What goes wrong here is logged: there is nobody left to tell."""
        if self._task is None:
            return
        if not self._task.done():
            self._to_app.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait({self._task}, timeout=timeout)
        if not self._task.done():
            logger.error("The application did not shut down within %.1f s; it is cut off.", timeout)
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await self._task
            except Exception:
                logger.exception("The application failed while it shut down.")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._to_app.get, self._from_app)

    async def _from_app(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            lines = message.get("message", "").strip().splitlines() or ["no reason given"]
            self._failure = lines[-1]
        if message["type"].startswith("lifespan.startup."):
            self._started.set()
