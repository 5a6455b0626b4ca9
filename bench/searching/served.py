"""A real server on one store: recall, what a query costs beside its parts, throughput, memory, filters."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import client
import machine
from corpus import Corpus, attributes, vectors
from prepared import Prepared
from report import Report
from searching import bare, parts
from searching.exact import NEIGHBOURS, Exact
from searching.parts import Parts
from searching.questions import Question
from server import Running, running

DENSE: dict[str, Any] = {"ranking_options": {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}}}
RECALL = 0.95
OVERHEAD = 1.25
JUDGED_FROM = 1_000_000
WORKER_BYTES = 90e6  # a worker's own, beside the index that they share
ROUNDS = 5  # of parts and server in turn
CONNECTIONS = 8
SECONDS = 5.0
FILTERED = 200  # questions
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
CHOSEN = 1  # the value of each attribute that the filters ask for


def measure(report: Report, corpus: Corpus, prepared: Prepared, questions: Sequence[Question]) -> None:
    exact = Exact(vectors(corpus, prepared.size), np.stack([one.vector for one in questions]))
    plain = [client.search(prepared.store, one.text) for one in questions]
    with running(prepared.path, RAGAGENT_SERVER__WORKERS="1") as started:
        recall = dense_recall(started, prepared, questions, exact)
        report.add(prepared.size, "dense recall@10, default setting", recall, at_least=RECALL)
        alone = Parts(prepared, bare.index(corpus, prepared.size), exact, questions, recall)
        _cost(report, started, prepared, questions, plain, alone)
        rate = client.throughput(started.port, plain, CONNECTIONS, SECONDS)
        report.add(prepared.size, "1 worker, queries/s", rate)
    _workers(report, prepared, plain)


def filters(report: Report, corpus: Corpus, prepared: Prepared, all_questions: Sequence[Question]) -> None:
    questions = all_questions[:FILTERED]
    given = attributes(prepared.size)
    asked = np.stack([one.vector for one in questions])
    with running(prepared.path, RAGAGENT_SERVER__WORKERS="1") as started:
        plain = [client.search(prepared.store, one.text) for one in questions]
        client.each(started.port, plain)
        unfiltered = machine.percentile(client.each(started.port, plain), 0.5)
        for key, share in SHARES.items():
            allowed = np.array([n for n, one in enumerate(given) if one[key] == CHOSEN], np.int64)
            if len(allowed) < NEIGHBOURS:
                report.note(f"{100 * share:g} % of {prepared.size:,} chunks are fewer than {NEIGHBOURS}")
                continue
            exact = Exact(vectors(corpus, prepared.size), asked, allowed)
            chosen = {"filters": {"type": "eq", "key": key, "value": CHOSEN}}
            recall = dense_recall(started, prepared, questions, exact, **chosen)
            report.add(prepared.size, f"filter of {100 * share:g} %: dense recall@10", recall, at_least=RECALL)
            seconds = client.each(started.port, [client.search(prepared.store, q.text, **chosen) for q in questions])
            report.add(prepared.size, f"filter of {100 * share:g} %: p50", machine.percentile(seconds, 0.5), "ms")
            report.add(prepared.size, f"filter of {100 * share:g} %: p99", machine.percentile(seconds, 0.99), "ms")
        report.add(prepared.size, "no filter: p50", unfiltered, "ms")


def dense_recall(
    started: Running, prepared: Prepared, questions: Sequence[Question], exact: Exact, **more: Any
) -> float:
    """Ask over HTTP for the dense leg alone; return how much of what is right was found."""
    asked = [client.search(prepared.store, one.text, max_num_results=NEIGHBOURS, **DENSE, **more) for one in questions]
    return exact.recall([_positions(body) for body in client.bodies(started.port, asked)])


def _positions(body: bytes) -> list[int]:
    return [int(item["chunk_id"].removeprefix("chunk_")) - 1 for item in json.loads(body)["data"]]


def _cost(
    report: Report,
    started: Running,
    prepared: Prepared,
    questions: Sequence[Question],
    plain: list[bytes],
    alone: Parts,
) -> None:
    """Parts and server by turns, so that both meet the same machine."""
    size, (worker,) = prepared.size, started.workers()
    seconds: dict[str, list[float]] = {part: [] for part in parts.PARTS}
    waited: list[float] = []
    used = 0.0

    async def ask_bare() -> None:
        for question in questions:
            await alone.ask(question.text, seconds)

    client.each(started.port, plain)
    for turn in range(ROUNDS):
        if not turn:
            asyncio.run(ask_bare())  # once for the page cache
            seconds = {part: [] for part in parts.PARTS}
        asyncio.run(ask_bare())
        before = machine.cpu_seconds(worker)
        waited += client.each(started.port, plain)
        used += machine.cpu_seconds(worker) - before
    alone.close()
    for part in parts.PARTS:
        report.add(size, f"bare: {part}", float(np.mean(seconds[part])) * 1000, "ms")
    if alone.ef_search:
        report.add(size, "bare: efSearch for the same recall", alone.ef_search)
    total, cpu = parts.sum_ms(seconds), used / len(waited) * 1000
    report.add(size, "bare parts, sum", total, "ms")
    report.add(size, "a query, worker's processor time", cpu, "ms")
    report.add(size, "a query over HTTP, p50", machine.percentile(waited, 0.5), "ms")
    report.add(size, "a query over HTTP, p99", machine.percentile(waited, 0.99), "ms")
    report.add(size, "processor time / bare parts", cpu / total, "x", at_most=OVERHEAD)
    report.add(size, "mean over HTTP / bare parts", float(np.mean(waited)) * 1000 / total, "x")


def _workers(report: Report, prepared: Prepared, plain: list[bytes]) -> None:
    """Ask all questions of every number of workers; then look at what memory they hold."""
    index = machine.bytes_under(prepared.index / prepared.store)
    report.add(prepared.size, "index on disk", index / 1e6, "MB")
    for count in (1, 2, 4):
        with running(prepared.path, RAGAGENT_SERVER__WORKERS=str(count)) as started:
            rate = client.throughput(started.port, plain, CONNECTIONS * count, SECONDS)
            time.sleep(0.5)
            held = [machine.memory(worker, prepared.path) for worker in started.workers()]
        total = sum(one.total for one in held) / 1e6
        # The promise is for a million; below it, what SQLite maps of the database is more than the index.
        limit = round((index + count * WORKER_BYTES) / 1e6) if prepared.size >= JUDGED_FROM else None
        name = f"{count} worker{'s' if count > 1 else ''}"
        if count == 2:
            report.add(prepared.size, f"{name}, queries/s", rate)
        report.add(prepared.size, f"{name}, PSS", total, "MB", at_most=limit)
        report.add(prepared.size, f"{name}, PSS: anonymous", sum(one.anonymous for one in held) / 1e6, "MB")
        report.add(prepared.size, f"{name}, PSS: index", sum(one.index for one in held) / 1e6, "MB")
        report.add(prepared.size, f"{name}, PSS: database", sum(one.database for one in held) / 1e6, "MB")
