"""Queries while the store changes: upserts one by one, a load, and the build of a generation that follows from it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import client
import machine
from corpus import Corpus
from prepared import Prepared
from ragagent import config_file
from report import Report
from searching.questions import Question
from server import Running, running

CONNECTIONS = 4
RATE = 12.5  # queries a second on each, due whatever became of the one before
SECONDS = 10.0  # of each phase; the build's lasts until the indexer rests, or BUILD_SECONDS
BUILD_SECONDS = 60.0
REST_SECONDS = 120.0
UPSERTS = 10.0  # a second
TOGETHER = 500  # documents in one request of the load
GROWTH = 1.5


def measure(report: Report, corpus: Corpus, prepared: Prepared, questions: Sequence[Question]) -> None:
    plain = [client.search(prepared.store, one.text) for one in questions]
    numbers = itertools.count(prepared.size)
    with prepared.copy() as copied, running(copied.path, RAGAGENT_SERVER__WORKERS="2") as started:
        client.each(started.port, plain)

        def load() -> None:
            for _ in range(config_file.load().ingest.max_delta_rows // TOGETHER + 2):
                _upsert(started, prepared.store, corpus, numbers, TOGETHER)

        def trickle() -> None:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                _upsert(started, prepared.store, corpus, numbers, 1)
                time.sleep(1 / UPSERTS)

        def build() -> None:
            machine.wait_until_quiet(started.indexer(), BUILD_SECONDS, patient=False)

        quiet = _during(started, plain, lambda: time.sleep(SECONDS))
        busy = {
            "publishes": _during(started, plain, trickle),
            "load": _during(started, plain, load),
            "build": _during(started, plain, build),
        }
        machine.wait_until_quiet(started.indexer(), REST_SECONDS, patient=False)
        quiet += _during(started, plain, lambda: time.sleep(SECONDS))
    for name, seconds in (("quiet", quiet), *busy.items()):
        report.add(prepared.size, f"{name}: p50", machine.percentile(seconds, 0.5), "ms")
        report.add(prepared.size, f"{name}: p99", machine.percentile(seconds, 0.99), "ms")
    for name, seconds in busy.items():
        ratio = machine.percentile(seconds, 0.99) / machine.percentile(quiet, 0.99)
        report.add(prepared.size, f"{name}: p99 over quiet", ratio, "x", at_most=None if name == "load" else GROWTH)


def _during(started: Running, plain: list[bytes], work: Callable[[], Any]) -> list[float]:
    """Return what the queries took while `work` ran."""
    thread = threading.Thread(target=work)
    thread.start()
    seconds: list[float] = []

    def ask(slot: int) -> None:
        requests = plain[slot::CONNECTIONS]
        seconds.extend(client.paced(started.port, requests, RATE, thread.is_alive))

    client.in_parallel([partial(ask, slot) for slot in range(CONNECTIONS)])
    thread.join()
    return seconds


def _upsert(started: Running, store: str, corpus: Corpus, numbers: Any, count: int) -> None:
    taken = list(itertools.islice(numbers, count))
    documents = [
        {"external_id": f"more-{number}", "text": text}
        for number, text in zip(taken, corpus.texts(count, taken[0]), strict=True)
    ]
    started.client.post("/v1/ragagent/documents", json={"store": store, "documents": documents}).raise_for_status()
