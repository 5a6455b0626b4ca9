"""The hit ratio of the first minute after a reload, after a start from nothing, and of a server that has been asked."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from caching.traces import zipf
from ragagent.supervisor import control
from report import Report
from server import Running, running

RATE = 40.0  # questions a second, each on a connection of its own
COLOURS = 200
ASKED = 150  # different questions, the most popular ones of the trace
STEADY = 0.8  # of the steady hit ratio, at least


def measure(report: Report, seconds: float) -> None:
    """Measure in windows of so many seconds."""
    questions = _questions()
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        with _started(Path(directory)) as started:
            _load(started)
            _ratio(started, questions, 2 * seconds)
            steady = _ratio(started, questions, seconds)
            control.request(started.data_dir, "reload", 60.0)
            after = _ratio(started, questions, seconds)
        with _started(Path(directory)) as started:
            cold = _ratio(started, questions, seconds)
    report.add(0, "hit ratio, steady", steady * 100, "%")
    report.add(0, f"hit ratio, first {seconds:.0f} s after a reload", after * 100, "%", at_least=STEADY * steady * 100)
    report.add(0, f"hit ratio, first {seconds:.0f} s after a start from nothing", cold * 100, "%")


def _started(directory: Path) -> AbstractContextManager[Running]:
    return running(directory, RAGAGENT_SERVER__WORKERS="2", RAGAGENT_CACHE__ENABLED="true", REDIS_URL="")


def _questions() -> Iterator[str]:
    return (f"What is the colour {number % ASKED}?" for number in itertools.cycle(zipf().tolist()))


def _load(started: Running) -> None:
    store = started.client.post("/v1/vector_stores", json={"name": "colours"}).raise_for_status().json()["id"]
    documents = [
        {"external_id": f"c{number}", "text": f"The colour {number} is shade number {number * 3}."}
        for number in range(COLOURS)
    ]
    body = {"store": store, "documents": documents}
    started.client.post("/v1/ragagent/documents", json=body).raise_for_status()


def _ratio(started: Running, questions: Iterator[str], seconds: float) -> float:
    return asyncio.run(_paced(started.port, questions, seconds))


async def _paced(port: int, questions: Iterator[str], seconds: float) -> float:
    """Ask at a steady rate whatever comes back, and return the share of answers that came from a cache."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30, verify=False
    ) as client:

        async def ask(question: str) -> bool:
            body = {"model": "ragagent", "messages": [{"role": "user", "content": question}]}
            reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status()
            return reply.headers["x-ragagent-cache"] not in ("miss", "bypass")

        begun, asked = time.monotonic(), []
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(begun + number / RATE - time.monotonic(), 0))
            asked.append(asyncio.create_task(ask(next(questions))))
        return sum(await asyncio.gather(*asked)) / len(asked)
