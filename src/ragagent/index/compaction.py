"""Compaction: the next generation in the making, from the rows that were alive when it began.

Slow, and it looks only at what no publish changes: the mapped generation and the delta's first rows. So it runs in a
thread of its own while publishes go on; `Writer.finish_compaction` then moves what came meanwhile.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ragagent.errors import Conflict
from ragagent.index import exact, files, generation
from ragagent.index.delta import Delta
from ragagent.index.files import Int64
from ragagent.index.generation import Generation

_Scalar = TypeVar("_Scalar", np.int64, np.float32)

_BATCH = 8192  # rows given to faiss at once: between two batches a build can be cancelled


class Compaction:
    """One build: `run` it in any thread, hand it to `finish_compaction`, and close it in any case."""

    def __init__(self, store: Path, number: int, source: Generation, delta: Delta, live: Int64, hnsw_rows: int) -> None:
        """Take over `source`, held once; `live` are the positions to keep."""
        self.number = number
        self.path = generation.generation_path(store, number).with_suffix(".tmp")
        self.delta_rows = len(delta.rows)  # What stands behind these came later.
        self._source = source
        self._delta = delta
        self._hnsw_rows = hnsw_rows
        self._cancelled = threading.Event()
        self.is_built = False
        self.is_closed = False
        rows = _gather(source.rows, delta.rows, live)
        order = np.lexsort((rows[:, 0], rows[:, 1]))  # by document, then chunk: what a generation promises
        self.rows = rows[order]
        self.origins = live[order]  # where each new row stood

    def run(self) -> None:
        """Build the generation, on disk and durable but under no name that a reader knows. Uses all cores.

        Raises Conflict when cancelled, StorageFull.
        """
        exact.use_threads(os.cpu_count() or 1)
        try:
            with files.writing(f"Generation {self.number}"):
                files.remove(self.path)
                generation.write(self.path, self._index(), self.rows)
        finally:
            exact.use_threads(1)
        self.is_built = True

    def cancel(self) -> None:
        """Have `run` give up at its next batch; from any thread."""
        self._cancelled.set()

    def close(self) -> None:
        """Let go of the source, once `run` has returned. What was built and not finished, the next open removes."""
        if not self.is_closed:
            self.is_closed = True
            self._source.release()

    def __enter__(self) -> Compaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self) -> Any:
        index = generation.new_index(len(self.rows), self._source.vectors.shape[1], self._hnsw_rows)
        for start in range(0, len(self.rows), _BATCH):
            if self._cancelled.is_set():
                raise Conflict(f"The build of generation {self.number} was cancelled.")
            index.add(_gather(self._source.vectors, self._delta.vectors, self.origins[start : start + _BATCH]))
        return index


def _gather(old: npt.NDArray[_Scalar], new: npt.NDArray[_Scalar], positions: Int64) -> npt.NDArray[_Scalar]:
    """Return the rows at `positions` of `old` and `new` laid end to end, without laying them so."""
    gathered = np.empty((len(positions), old.shape[1]), old.dtype)
    is_old = positions < len(old)
    gathered[is_old] = old[positions[is_old]]
    gathered[~is_old] = new[positions[~is_old] - len(old)]
    return gathered
