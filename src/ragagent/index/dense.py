"""The dense leg: a generation's search and the delta's exact scores, as one list of the best live chunks."""

from __future__ import annotations

import numpy as np

from ragagent.errors import Invalid
from ragagent.index import exact
from ragagent.index.delta import Delta
from ragagent.index.files import Float32, Int64
from ragagent.index.generation import Generation, Selection

UNIT_TOLERANCE = 1e-3  # of the squared length: what float32, and float16 from an endpoint, may be off


class Dense:
    """Nearest chunks by inner product, as of one manifest. Safe for threads."""

    def __init__(self, generation: Generation, delta: Delta, dimension: int, ef_search: int) -> None:
        self._generation = generation
        self._delta = delta
        self._dimension = dimension
        self._ef_search = ef_search
        alive = np.ones(len(generation.rows) + len(delta.rows), np.bool_)
        alive[delta.dead] = False
        self._alive = alive[: len(generation.rows)], alive[len(generation.rows) :]
        # Without a filter these hold for every search, so they are made once; None spares it the mask altogether.
        self._unfiltered = tuple(None if part.all() else Selection(part) for part in self._alive)

    def select(self, documents: Int64 | None) -> tuple[Selection | None, Selection | None]:
        """Return what a search may return of the generation and of the delta; None: all of it."""
        if documents is None:
            return self._unfiltered[0], self._unfiltered[1]
        in_generation, in_delta = self._alive
        return (
            Selection(self._generation.select(documents) & in_generation),
            Selection(exact.contains(documents, self._delta.rows[:, 1]) & in_delta),
        )

    def search(
        self, vector: Float32, candidates: int, selections: tuple[Selection | None, Selection | None]
    ) -> list[tuple[int, float]]:
        """Return up to `candidates` (chunk id, inner product), best first. Raises Invalid for a bad vector."""
        query = unit_vectors(vector, self._dimension)[0]
        old, old_scores = self._generation.search(query, candidates, selections[0], self._ef_search)
        new, new_scores = self._search_delta(query, candidates, selections[1])
        found = np.concatenate((old_scores, new_scores))
        chunks = np.concatenate((self._generation.rows[old, 0], self._delta.rows[new, 0]))
        order = np.lexsort((chunks, -found))[:candidates]
        return list(zip(chunks[order].tolist(), found[order].tolist(), strict=True))

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
