"""Processes that share a Redis through the cache, as the workers of several hosts do, and do as a test tells them.

    with sharers(redis, 4) as processes:
        for each in processes:
            each.ask("question", seconds=0.3, callers=50)
        results = [each.answered() for each in processes]

Each order is a line of JSON on standard input; what happens is told in lines of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ragagent.cache import keys
from ragagent.cache.envelope import STAMP
from ragagent.cache.fetched import Streaming
from ragagent.cache.flights.flight import Tell
from ragagent.cache.flights.relay import Relay
from ragagent.cache.keys import Key
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.errors import RagagentError, Upstream
from ragagent.remote.connection import Remote
from ragagent.remote.lease import Leases
from redis_server import RedisServer

LEASE_SECONDS = 0.8
PIECE_SECONDS = 0.05
LIFE = Life(60)


def key(text: str) -> Key:
    return keys.answer("acme", [], "p", "e", "g", [text], {})


class Sharer:
    """One process, as the test sees it."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # What pytest has found, it finds as well.
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._kept: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, text: str, **order: Any) -> None:
        """Have it ask for the value of `text`: `callers`, `seconds` of work, `pieces`, `fails`, `leaves_after`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"text": text, **order}) + "\n")
        self._process.stdin.flush()

    def expect(self, event: str, timeout: float = 20.0) -> dict[str, Any]:
        """Return the next event of that name; fail if there is none in time."""
        for number, kept in enumerate(self._kept):
            if kept["event"] == event:
                return self._kept.pop(number)
        while (found := self._events.get(timeout=timeout))["event"] != event:
            self._kept.append(found)
        return found

    def answered(self) -> list[Any]:
        """Return what its callers got: values, or the names of errors."""
        found: list[Any] = self.expect("answered")["found"]
        return found

    def computations(self) -> int:
        """Return how many it has begun that were not counted before."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._kept.append(self._events.get_nowait())
        begun = sum(1 for event in self._kept if event["event"] == "computing")
        self._kept = [event for event in self._kept if event["event"] != "computing"]
        return begun

    @property
    def is_computing(self) -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                self._kept.append(self._events.get_nowait())
        return any(event["event"] == "computing" for event in self._kept)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                self._events.put(json.loads(line))


@contextlib.contextmanager
def sharers(redis: RedisServer, number: int) -> Iterator[list[Sharer]]:
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(number):
            processes.append(Sharer(redis.url))
            stack.callback(processes[-1].end)
        for process in processes:
            process.expect("ready")
        yield processes


# The process itself


async def main(url: str) -> None:
    # Patient with a Redis that is only slow because the machine is: what is tested here is not that.
    async with Remote(url, timeout_seconds=2.0) as remote:
        relay = Relay(Leases(remote, STAMP, LEASE_SECONDS))
        cache = TieredCache(LocalCache(1024 * 1024), remote, relay=relay)
        say("ready")
        running = set()
        while line := await asyncio.to_thread(sys.stdin.readline):
            task = asyncio.create_task(serve(cache, json.loads(line)))
            running.add(task)
            task.add_done_callback(running.discard)


async def serve(cache: TieredCache, order: dict[str, Any]) -> None:
    found = await asyncio.gather(*(one(cache, order) for _ in range(order.get("callers", 1))), return_exceptions=True)
    say("answered", found=[type(each).__name__ if isinstance(each, Exception) else each for each in found])


async def one(cache: TieredCache, order: dict[str, Any]) -> Any:
    """Return the value; with pieces, all that was heard and the value, or the error in its place."""

    async def work(tell: Tell) -> Any:
        say("computing")
        for piece in range(order.get("pieces", 0)):
            tell(f"{os.getpid()}: {piece}")
            await asyncio.sleep(PIECE_SECONDS)
        await asyncio.sleep(order.get("seconds", 0))
        if order.get("fails"):
            raise Upstream("The model endpoint is away.", retry_after=3)
        return {"by": os.getpid()}

    async def compute() -> Any:
        return await work(lambda piece: None)

    if leaves := order.pop("leaves_after", None):
        async with asyncio.timeout(leaves):
            return await one(cache, order)
    if "pieces" not in order:
        return (await cache.fetch(key(order["text"]), compute, LIFE, shared=True)).value
    found = await cache.stream(key(order["text"]), work, LIFE)
    if not isinstance(found, Streaming):
        return found.value
    heard = [found.first, *[piece async for piece in found.rest()]]
    try:
        return [heard, await found.value()]
    except RagagentError as exc:
        return [heard, type(exc).__name__]


def say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
