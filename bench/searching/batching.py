"""Would it pay to put concurrent queries into one call of the embedder, or of faiss? One thread each way."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from corpus import Corpus, vectors
from ragagent import config_file
from ragagent.providers import registry
from report import Report
from searching import kinds
from searching.exact import faiss
from searching.questions import Question

TOGETHER = (1, 2, 4, 8, 16)
AT = 8  # as many as a busy worker might have waiting
PAYS = 1.25
OF = ((kinds.FLAT, 10_000), (kinds.HNSW, 100_000))
EF_SEARCH = 64
ROUNDS = 3


Call = Callable[[int, int], Awaitable[object]]


async def measure(report: Report, corpus: Corpus, largest: int, questions: Sequence[Question]) -> None:
    asked = np.ascontiguousarray(np.stack([one.vector for one in questions]))
    texts = [one.text for one in questions]
    embedder = registry.embedder(config_file.load().embedder)

    async def embed(first: int, count: int) -> object:
        return await embedder.embed(texts[first : first + count])

    await _judge(report, largest, "embedding", len(texts), embed)
    for kind, size in OF:
        rows = vectors(corpus, min(size, largest))
        index = kind.make(rows)
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        index.add(np.ascontiguousarray(rows))
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParametersHNSW(efSearch=EF_SEARCH) if kind is kinds.HNSW else None

        async def search(first: int, count: int, index: Any = index, parameters: Any = parameters) -> object:
            return index.search(asked[first : first + count], kinds.CANDIDATES, params=parameters)

        await _judge(report, len(rows), kind.name, len(texts), search)


async def _judge(report: Report, size: int, what: str, total: int, call: Call) -> None:
    each = {count: await _microseconds(total, count, call) for count in TOGETHER}
    gain = each[1] / each[AT]
    report.add(size, f"{AT} in one call of {what}: gain", gain, "x")
    shown = ", ".join(f"{count}: {taken:.0f}" for count, taken in each.items())
    report.note(f"{what}, us a query by queries in a call: {shown}; {'pays' if gain >= PAYS else 'does not pay'}")


async def _microseconds(total: int, count: int, call: Call) -> float:
    """Return what a query takes when `count` go together: the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for first in range(0, total - count + 1, count):
            await call(first, count)
        best = min(best, (time.process_time() - begun) / (total // count * count))
    return best * 1e6
