"""The application that all servers serve. `releases.deploy` copies it to where they find it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

# What `deploy` changes.
VERSION = 1
STARTUP_SECONDS = 0.0

EVENTS = 5
EVENT_SECONDS = 0.02


async def who(request: Request) -> Response:
    return JSONResponse({"version": VERSION, "pid": os.getpid()})


async def stream(request: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        for number in range(EVENTS):
            yield f"data: {number}\n\n"
            await asyncio.sleep(EVENT_SECONDS)
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def block(request: Request) -> Response:
    time.sleep(3600)  # noqa: ASYNC251 - the event loop hangs, which is the point
    return Response()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await asyncio.sleep(STARTUP_SECONDS)
    yield


paths = {"/": who, "/readyz": who, "/stream": stream, "/block": block}
app = Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()], lifespan=lifespan)
