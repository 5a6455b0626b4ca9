"""Index types by size, from faiss alone: what each needs to find 95 % of the ten nearest, in bytes and in time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import machine
from corpus import CACHE, Corpus, vectors
from report import Report
from searching.exact import Exact, Vectors, faiss
from searching.questions import Question

RECALL = 0.95
SMALL = (2_000, 5_000, 10_000, 20_000, 50_000)
LINKS, EF_CONSTRUCTION = 32, 80  # as the index has them
CANDIDATES = 50
EF_SEARCH = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
TRAINED_ON = 100_000
BATCH = 8_192
QUESTIONS = 200


@dataclass(frozen=True)
class Kind:
    name: str
    make: Callable[[Vectors], Any]  # an empty index, trained
    settings: Sequence[Any]


def measure(report: Report, corpus: Corpus, largest: int, questions: Sequence[Question]) -> None:
    asked = np.stack([one.vector for one in questions[:QUESTIONS]])
    sizes = sorted({*(size for size in SMALL if size < largest), *_decades(largest), largest})
    for size in sizes:
        rows = vectors(corpus, size)
        exact = Exact(rows, asked)
        for kind in KINDS:
            _measure(report, kind, rows, asked, exact)
    for name, other in (("HNSW", "Flat"), ("HNSW SQ8", "Flat"), ("IVF", "Flat"), ("IVF", "HNSW"), ("HNSW SQ8", "HNSW")):
        _compare(report, sizes, name, other)


def _measure(report: Report, kind: Kind, rows: Vectors, asked: Vectors, exact: Exact) -> None:
    size = len(rows)
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    begun = time.perf_counter()
    index = kind.make(rows)
    for first in range(0, size, BATCH):
        index.add(np.ascontiguousarray(rows[first : first + BATCH]))
    built = time.perf_counter() - begun
    with tempfile.TemporaryDirectory(prefix="kind-", dir=CACHE) as directory:
        path = Path(directory) / "index.faiss"
        faiss.write_index(index, str(path))
        del index
        report.add(size, f"{kind.name}: bytes per row", path.stat().st_size / size)
        report.add(size, f"{kind.name}: build", built, "s")
        faiss.omp_set_num_threads(1)
        mapped = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        for setting in kind.settings:
            found, seconds = _search(mapped, asked, setting)
            recall = exact.recall(found)
            if recall >= RECALL:
                break
        _, seconds = _search(mapped, asked, setting)
        report.add(size, f"{kind.name}: recall@10", recall)
        report.add(size, f"{kind.name}: setting (ef, probes)", getattr(setting, "value", 0))
        report.add(size, f"{kind.name}: p50", machine.percentile(seconds, 0.5), "ms")
        del mapped


def _search(index: Any, asked: Vectors, setting: Any) -> tuple[list[list[int]], list[float]]:
    found, seconds = [], []
    for question in asked:
        begun = time.perf_counter()
        _, rows = index.search(question[None], CANDIDATES, params=setting.parameters)
        seconds.append(time.perf_counter() - begun)
        found.append(rows[0].tolist())
    return found, seconds


def _compare(report: Report, sizes: Sequence[int], kind: str, other: str) -> None:
    ratios = {size: report.value(size, f"{kind}: p50") / report.value(size, f"{other}: p50") for size in sizes}
    first = next((size for size in sizes if all(ratios[at] < 1 for at in sizes if at >= size)), None)
    where = "at no size" if first is None else f"from {first:,} rows on"
    report.note(f"{kind} is quicker than {other} {where} ({', '.join(f'{s:,}: {r:.2f}x' for s, r in ratios.items())})")


def _decades(largest: int) -> list[int]:
    return [size for size in (100_000, 1_000_000) if size <= largest]


@dataclass(frozen=True)
class Setting:
    value: int
    parameters: Any


def _flat(rows: Vectors) -> Any:
    return faiss.IndexFlatIP(rows.shape[1])


def _hnsw(rows: Vectors) -> Any:
    index = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def _hnsw_sq8(rows: Vectors) -> Any:
    index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.train(np.ascontiguousarray(rows[:TRAINED_ON]))
    return index


def _ivf(rows: Vectors) -> Any:
    lists = int(4 * len(rows) ** 0.5)
    quantizer = faiss.IndexFlatIP(rows.shape[1])
    index = faiss.IndexIVFFlat(quantizer, rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.cp.min_points_per_centroid = 1
    index.train(np.ascontiguousarray(rows))
    index.own_fields, quantizer.this = True, quantizer.this
    quantizer.this.disown()
    return index


_GRAPH = [Setting(ef, faiss.SearchParametersHNSW(efSearch=ef)) for ef in EF_SEARCH]
FLAT = Kind("Flat", _flat, [Setting(0, None)])
HNSW = Kind("HNSW", _hnsw, _GRAPH)
KINDS = (
    FLAT,
    HNSW,
    Kind("HNSW SQ8", _hnsw_sq8, _GRAPH),
    Kind("IVF", _ivf, [Setting(probes, faiss.SearchParametersIVF(nprobe=probes)) for probes in PROBES]),
)
