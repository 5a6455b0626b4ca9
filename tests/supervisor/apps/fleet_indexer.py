"""An indexer for tests: holds a lock while it serves, as the real one does, and writes a line for each time it did."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from ragagent.config import Config
from ragagent.errors import EXIT_OK
from ragagent.lifeline import Lifeline, attend


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    assert not listeners
    return asyncio.run(serve(config.data.path, lifeline))


async def serve(directory: Path, lifeline: Lifeline) -> int:
    async with attend(lifeline, lambda: {"stores": [{"id": "vs_1"}]}) as duty:
        lifeline.ready()
        if not await duty.told_to_serve():
            return EXIT_OK
        with (directory / "WRITER").open("a+") as lock:
            while not duty.leaving and not _locked(lock.fileno()):  # noqa: ASYNC110 - a file lock wakes nobody
                await asyncio.sleep(0.01)
            lifeline.serving()
            await duty.told_to_leave()
            logging.getLogger("ragagent.indexer").info("the indexer leaves")
    return EXIT_OK


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.write(fd, f"{os.getpid()}\n".encode())
    return True
