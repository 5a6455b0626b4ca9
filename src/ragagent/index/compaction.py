"""Compaction: the next generation in the making, from the rows that were alive when it began.

Slow, and it looks only at what no publish changes: mapped generations and the delta's first rows. So it runs in a
thread of its own while publishes go on; `Writer.finish_compaction` then moves what came meanwhile.

The graph, which takes the time, is built in the background (`background.py`). Rows without one are copied at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ragagent.errors import Conflict
from ragagent.index import files, generation, storage
from ragagent.index.background import Background
from ragagent.index.delta import Delta
from ragagent.index.files import Float32, Int64
from ragagent.index.generation import Generation
from ragagent.index.manifest import Manifest

_BATCH = 1024  # rows given to faiss at once: between two batches a build can be cancelled, or found to be starved


class Compaction:
    """One build: `run` it in any thread, hand it to `finish_compaction`, and close it in any case."""

    def __init__(
        self,
        store: Path,
        number: int,
        opened: Sequence[Generation],
        first: int,
        delta: Delta,
        live: Int64,
        *,
        hnsw_rows: int,
        is_int8: bool,
    ) -> None:
        """Take over the store's generations, held once: those from place `first` on are merged, at `live` positions."""
        self._store = store
        self.number = number
        self.path = generation.generation_path(store, number).with_suffix(".tmp")
        self.kept = tuple(one.part for one in opened[:first])
        self.delta_rows = len(delta.rows)  # What stands behind these came later.
        self._opened = opened
        self._sources = opened[first:]
        self._delta = delta
        self._hnsw_rows = hnsw_rows
        self._is_int8 = is_int8
        self._cancelled = threading.Event()
        self.is_built = False
        self.is_closed = False
        start = sum(part.rows for part in self.kept)
        merged = live[live >= start]
        rows = np.concatenate([*(source.rows for source in self._sources), delta.rows])[merged - start]
        order = np.lexsort((rows[:, 0], rows[:, 1]))  # by document, then chunk: what a generation promises
        self.rows = rows[order]
        self.origins = merged[order]  # where each new row stood
        self._places = self.origins - start

    def run(self) -> None:
        """Build the generation, on disk and durable but under no name that a reader knows.

        Raises Conflict when cancelled, StorageFull, and Damaged when a source is not what was written: a copy of it
        would have a checksum that fits.
        """
        for source in self._sources:
            generation.check(self._store, source.part.number, vectors=True)
        with files.writing(f"Generation {self.number}"):
            files.remove(self.path)
            if len(self.rows) < self._hnsw_rows:
                index = self._index(_at_once)
                generation.write(self.path, index, self.rows)
            else:
                with Background(f"generation-{self.number}") as background:
                    index = self._index(background.do)
                    background.do(generation.write, self.path, index, self.rows)
        self.is_built = True

    def cancel(self) -> None:
        """Have `run` give up at its next batch; from any thread."""
        self._cancelled.set()

    def close(self) -> None:
        """Let go of the generations, once `run` has returned. What was built in vain the next open removes."""
        if not self.is_closed:
            self.is_closed = True
            for one in self._opened:
                one.release()

    def missed(self, current: Manifest, live: Int64) -> tuple[Int64, Float32, Int64]:
        """Return what came since: rows, their vectors, and what is dead, by the positions behind this build."""
        newest = Delta.open(self._store, current)
        is_alive = np.zeros(current.positions, np.bool_)
        is_alive[live] = True
        came = np.flatnonzero(is_alive[current.generation_rows + self.delta_rows :]) + self.delta_rows
        kept = sum(part.rows for part in self.kept)
        dead = np.concatenate((np.flatnonzero(~is_alive[:kept]), kept + np.flatnonzero(~is_alive[self.origins])))
        return newest.rows[came], newest.vectors[came], dead

    def __enter__(self) -> Compaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self, do: Callable[..., Any]) -> Any:
        index = generation.new_index(len(self.rows), self._delta.vectors.shape[1], self._hnsw_rows, self._is_int8)
        if not index.is_trained:
            self._train(index, do)
        for start in range(0, len(self.rows), _BATCH):
            if self._cancelled.is_set():
                raise Conflict(f"The build of generation {self.number} was cancelled.")
            do(index.add, self._vectors(self._places[start : start + _BATCH]))
        return index

    def _train(self, index: Any, do: Callable[..., Any]) -> None:
        sample = self._vectors(self._sample())
        cut = [one for one in self._opened if one.vectors.is_int8]
        largest = max(cut, key=lambda one: one.part.rows, default=None)
        if largest is not None and largest.vectors.fits(sample):
            generation.adopt_ranges(index, largest)
        else:
            do(index.train, sample)

    def _sample(self) -> Int64:
        """Return places all over the rows: those of one document are alike."""
        step = -(-len(self._places) // storage.TRAIN_ROWS)
        return self._places[:: max(step, 1)]

    def _vectors(self, places: Int64) -> Float32:
        """Return the vectors at `places` of the sources and the delta laid end to end, without laying them so."""
        gathered = np.empty((len(places), self._delta.vectors.shape[1]), np.float32)
        first = 0
        for source in self._sources:
            end = first + len(source.rows)
            inside = (first <= places) & (places < end)
            gathered[inside] = source.vectors.take(places[inside] - first)
            first = end
        inside = places >= first
        gathered[inside] = self._delta.vectors[places[inside] - first]
        return gathered


def _at_once(act: Callable[..., Any], *arguments: Any) -> Any:
    return act(*arguments)
