"""Each leg alone and both fused, in one thread, without a server: how their time grows with the store.

Growth is of processor time, which is what the work costs however busy the machine is; it has no other waits than page
faults, and the first round takes those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import machine
from prepared import Prepared
from ragagent import config_file
from ragagent.index.fusion import fuse
from ragagent.index.searchers import Searchers
from report import Report
from searching.questions import Question

ROUNDS = 3
OPENINGS = 10
GROWTH = 2.0
OPEN_MS = 20.0
LEGS = {"dense": "dense leg", "lexical": "lexical leg", "fused": "both legs, fused"}

Times = npt.NDArray[np.float64]


def measure(report: Report, stores: Sequence[Prepared], questions: Sequence[Question]) -> None:
    """Rounds go over all sizes in turn, so that what else the machine does falls on all of them alike."""
    settings = config_file.load().retrieval
    taken: dict[tuple[int, str], list[Times]] = {(one.size, leg): [] for one in stores for leg in LEGS}
    open_ = [Searchers(one.index, ef_search=settings.ef_search) for one in stores]
    for turn in range(ROUNDS + 1):
        for one, searchers in zip(stores, open_, strict=True):
            with searchers.pin(one.store) as searcher:
                for question in questions:
                    marks = [_now()]
                    dense = searcher.search(question.vector, (), candidates=settings.candidates).dense
                    marks.append(_now())
                    lexical = searcher.search(None, question.terms, candidates=settings.candidates).lexical
                    marks.append(_now())
                    fuse(dense, lexical, dense_weight=settings.dense_weight, limit=2 * settings.candidates)
                    marks.append(_now())
                    if turn:  # The first round brings the files into memory.
                        for leg, begun, ended in (("dense", 0, 1), ("lexical", 1, 2), ("fused", 0, 3)):
                            taken[one.size, leg].append(marks[ended] - marks[begun])
    for searchers in open_:
        searchers.close()
    for leg, name in LEGS.items():
        for number, one in enumerate(stores):
            wall, used = np.array(taken[one.size, leg]).T
            report.add(one.size, f"{name}: p50", machine.percentile(wall, 0.5), "ms")
            report.add(one.size, f"{name}: p99", machine.percentile(wall, 0.99), "ms")
            if number:
                before = stores[number - 1].size
                growth = np.median(used) / np.median(np.array(taken[before, leg])[:, 1])
                per_decade = float(growth) ** (1 / math.log10(one.size / before))
                report.add(one.size, f"{name}: grows per decade by", per_decade, "x", at_most=GROWTH)
    for one in stores:
        report.add(one.size, "opening a store, median", _opening(one.index, one.store), "ms", at_most=OPEN_MS)


def _opening(index: Path, store: str) -> float:
    """Return the milliseconds of a first pin: manifest, generations, delta, lexical index; files in memory."""
    seconds = []
    for _ in range(OPENINGS):
        searchers = Searchers(index, ef_search=config_file.load().retrieval.ef_search)
        begun = time.perf_counter()
        with searchers.pin(store):
            seconds.append(time.perf_counter() - begun)
        searchers.close()
    return machine.percentile(seconds, 0.5)


def _now() -> Times:
    """Return the time on the wall, and that which this thread has used."""
    return np.array((time.perf_counter(), time.thread_time()))
