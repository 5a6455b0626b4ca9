"""A worker for tests: a small Starlette application behind the real edge and the real lifeline.

Its behaviour comes from the file that FLEET_APP names, read when the module is imported: so a test changes the "code"
of the next release by rewriting that file. `at_import` and `at_boot` in it are Python, for faults of every kind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ragagent.config import Config
from ragagent.edge.server import Server
from ragagent.errors import EXIT_OK, ConfigError
from ragagent.lifeline import Lifeline, attend

SLOT = -1  # which worker this is, once it is one
CODE = json.loads(Path(os.environ["FLEET_APP"]).read_text())

if CODE.get("import_error"):
    raise RuntimeError(CODE["import_error"])
exec(CODE.get("at_import", ""))


async def who(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params.get("sleep", "0")))
    return JSONResponse({"pid": os.getpid(), "version": CODE["version"]})


async def block(request: Request) -> Response:
    time.sleep(60)  # noqa: ASYNC251 - the event loop hangs, which is the point
    return JSONResponse({})


async def say(request: Request) -> Response:
    logging.getLogger("ragagent.worker").info("said: %s", request.query_params["text"])
    os.write(1, b"stdout has " + request.query_params["text"].encode() + b"\n")
    return JSONResponse({"pid": os.getpid()})


async def stream(request: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        for number in range(int(request.query_params["count"])):
            yield f"data: {number}{' ' * int(request.query_params.get('padding', '0'))}\n\n"
            await asyncio.sleep(0.1)
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def readyz(request: Request) -> Response:
    if CODE.get("sick_slot") == SLOT:
        return JSONResponse({}, 503)
    await asyncio.sleep(60 if CODE.get("deaf_slot") == SLOT else 0)
    return JSONResponse({})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await asyncio.sleep(CODE.get("startup_seconds", 0.0))
    if CODE.get("lifespan_error"):
        raise RuntimeError(CODE["lifespan_error"])
    yield
    with Path(os.environ["FLEET_APP"]).with_name("shutdowns").open("a") as file:
        file.write(f"{os.getpid()}\n")


def prepare(config: Config) -> None:
    if CODE.get("prepare_error"):
        raise ConfigError(CODE["prepare_error"])


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    global SLOT
    SLOT = slot
    exec(CODE.get("at_boot", ""))
    return asyncio.run(serve(config, listeners, lifeline))


async def serve(config: Config, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    paths = {"/": who, "/block": block, "/say": say, "/stream": stream, "/readyz": readyz}
    routes = [Route(path, endpoint) for path, endpoint in paths.items()]
    server = Server(Starlette(routes=routes, lifespan=lifespan), listeners, config.server)

    def stats() -> dict[str, int]:
        return {"in_flight": server.in_flight, "connections": server.connections, "requests": server.requests}

    async with attend(lifeline, stats, server.attach) as duty:
        await server.startup()
        lifeline.ready()
        if await duty.told_to_serve():
            await server.accept()
            lifeline.serving()
            if CODE.get("life_seconds"):
                await asyncio.sleep(CODE["life_seconds"])
                os._exit(9)
            await duty.told_to_leave()
        await server.drain()
        lifeline.finished()
    return EXIT_OK
