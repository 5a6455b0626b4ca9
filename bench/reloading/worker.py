"""The same application as a child of our supervisor: worker and indexer in one, as only workers get listeners."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Sequence

from ragagent.config import Config
from ragagent.edge.server import Server
from ragagent.errors import EXIT_OK
from ragagent.lifeline import Lifeline, attend

app = importlib.import_module("app").app  # The deployed copy, from the directory that the server runs in.


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    asyncio.run(serve(config, listeners, lifeline) if listeners else idle(lifeline))
    return EXIT_OK


async def serve(config: Config, listeners: Sequence[socket.socket], lifeline: Lifeline) -> None:
    server = Server(app, listeners, config.server)
    async with attend(lifeline, on_probe=server.attach) as duty:
        await server.startup()
        lifeline.ready()
        if await duty.told_to_serve():
            await server.accept()
            lifeline.serving()
            await duty.told_to_leave()
        await server.drain()


async def idle(lifeline: Lifeline) -> None:
    async with attend(lifeline) as duty:
        lifeline.ready()
        if await duty.told_to_serve():
            lifeline.serving()
            await duty.told_to_leave()
