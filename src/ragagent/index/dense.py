"""The dense leg: the generations' searches and the delta's exact scores, as one list of the best live chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from ragagent.errors import Invalid
from ragagent.index import exact
from ragagent.index.delta import Delta
from ragagent.index.files import Float32, Int64
from ragagent.index.generation import Generation, Selection

UNIT_TOLERANCE = 1e-3  # of the squared length: what float32, and float16 from an endpoint, may be off

_KNOWN_FILTERS = 8  # each holds a byte a row, and two bits more, as long as the searcher lives

Selections = Sequence[Selection | None]  # of each generation, then of the delta; None: all of it


class Dense:
    """Nearest chunks by inner product, as of one manifest. Safe for threads."""

    def __init__(self, generations: Sequence[Generation], delta: Delta, dimension: int, ef_search: int) -> None:
        self._generations = generations
        self._delta = delta
        self._dimension = dimension
        self._ef_search = ef_search
        self._lock = threading.Lock()  # guards _selected alone
        self._selected: deque[tuple[Int64, Selections]] = deque(maxlen=_KNOWN_FILTERS)
        ends = np.cumsum([*(len(generation.rows) for generation in generations), len(delta.rows)])
        alive = np.ones(ends[-1], np.bool_)
        alive[delta.dead] = False
        self._alive = np.split(alive, ends[:-1])
        # Without a filter these hold for every search, so they are made once; None spares it the mask altogether.
        self._unfiltered: Selections = [None if part.all() else Selection(part) for part in self._alive]

    def select(self, documents: Int64 | None) -> Selections:
        """Return what a search may return; of `documents` (sorted) only, when given.

        The last few arrays are known again, as objects: who filters in the same way again gives the same array, and
        never changes it.
        """
        if documents is None:
            return self._unfiltered
        with self._lock:
            for known, selections in self._selected:
                if known is documents:
                    return selections
        selections = self._select(documents)
        with self._lock:
            self._selected.append((documents, selections))
        return selections

    def _select(self, documents: Int64) -> Selections:
        chosen = [generation.select(documents) for generation in self._generations]
        chosen.append(exact.contains_many(documents, self._delta.rows[:, 1]))
        return [Selection(mask & alive) for mask, alive in zip(chosen, self._alive, strict=True)]

    def search(self, vector: Float32, candidates: int, selections: Selections) -> list[tuple[int, float]]:
        """Return up to `candidates` (chunk id, inner product), best first. Raises Invalid for a bad vector."""
        query = unit_vectors(vector, self._dimension)[0]
        found, chunks = [], []
        for part, selection in zip(self._generations, selections, strict=False):
            positions, scores = part.search(query, candidates, selection, self._ef_search)
            found.append(scores)
            chunks.append(part.rows[positions, 0])
        positions, scores = self._search_delta(query, candidates, selections[-1])
        all_scores = np.concatenate([*found, scores])
        all_chunks = np.concatenate([*chunks, self._delta.rows[positions, 0]])
        order = np.lexsort((all_chunks, -all_scores))[:candidates]
        return list(zip(all_chunks[order].tolist(), all_scores[order].tolist(), strict=True))

    def _search_delta(self, query: Float32, count: int, selection: Selection | None) -> tuple[Int64, Float32]:
        if selection is None:
            found = exact.scores(query, self._delta.vectors)
            top = exact.best(found, count)
            return top, found[top]
        found = exact.scores(query, self._delta.vectors, selection.positions)
        top = exact.best(found, count)
        return selection.positions[top], found[top]


def unit_vectors(vectors: Float32, dimension: int) -> Float32:
    """Return the vectors as a contiguous float32 array (n, dimension).

    Raises Invalid: another dimension, a value that is no number, a length that is not one.
    """
    found = np.ascontiguousarray(vectors, np.float32)
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] != dimension:
        raise Invalid(f"A vector has shape {found.shape[1:]}; this store's vectors have {dimension} values.")
    lengths = np.einsum("nd,nd->n", found, found)
    # Written as `not <=` so that NaN and infinity are refused as well.
    if not bool(np.all(np.abs(lengths - 1.0) <= UNIT_TOLERANCE)):
        worst = float(lengths[np.argmax(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))])
        raise Invalid(f"A vector has the squared length {worst:g}; it must be 1, of finite values.")
    return found
