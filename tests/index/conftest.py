"""A store to test on: real files, small vectors, and a picture of all that a searcher can see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragagent.index import directory
from ragagent.index.rows import Row
from ragagent.index.searchers import Searchers
from ragagent.index.writer import Writer

DIMENSION = 16
STORE = "vs_test"
MODEL = "model-a"


@dataclass
class Bed:
    """One index root. What it opens, it closes."""

    root: Path
    closing: ExitStack
    options: dict[str, Any] = field(default_factory=lambda: {"hnsw_rows": 10_000, "max_delta_rows": 100})

    @property
    def store(self) -> Path:
        return self.root / STORE

    def writer(self, store_id: str = STORE, **options: Any) -> Writer:
        writer = Writer.open(self.root, store_id, MODEL, DIMENSION, **{**self.options, **options})
        self.closing.callback(writer.close)
        return writer

    def recreated(self) -> Writer:
        """Throw the index away and open an empty one at seq 0, for SQLite to be replayed into."""
        directory.remove(self.root, STORE)
        return self.writer()

    def searchers(self, *, ef_search: int = 64, capacity: int = 256) -> Searchers:
        return self.closing.enter_context(closing(Searchers(self.root, ef_search=ef_search, capacity=capacity)))

    def child(self, *arguments: object) -> subprocess.Popen[str]:
        """Start tests/index/child.py as its own process; it is killed at the end if it still runs."""
        command = [sys.executable, str(Path(__file__).with_name("child.py")), str(self.root)]
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.closing.callback(end, process)
        return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with ExitStack() as stack:
        yield Bed(tmp_path / "index", stack)


def vector(seed: int, dimension: int = DIMENSION) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector, the same for the same seed in every process."""
    found = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return (found / np.linalg.norm(found)).astype(np.float32)


def row(chunk_id: int, document_id: int | None = None, *, seed: int | None = None, tokens: str = "") -> Row:
    """Row `chunk_id`: found by `vector(chunk_id)`, by the term "all", and by its own term."""
    owner = chunk_id // 4 if document_id is None else document_id
    return Row(chunk_id, owner, vector(chunk_id if seed is None else seed), f"all w{chunk_id} {tokens}".strip())


def rows(chunk_ids: Sequence[int]) -> list[Row]:
    return [row(chunk_id) for chunk_id in chunk_ids]


def seen(searchers: Searchers, store_id: str = STORE) -> tuple[int, set[int], set[int]]:
    """Return seq, and the chunks that each leg can find at all."""
    with searchers.pin(store_id) as searcher:
        legs = searcher.search(vector(0), ["all"], candidates=1_000_000)
        return searcher.seq, {chunk for chunk, _ in legs.dense}, {chunk for chunk, _ in legs.lexical}
