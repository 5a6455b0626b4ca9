"""What the right answers are: every vector compared, and how much of it was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

faiss: Any = _faiss

NEIGHBOURS = 10
TOLERANCE = 1e-5  # Two texts may be the same, and a store may round: what scores as well as the tenth is as good.
SLICE = 50_000

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class Exact:
    """The questions' best scores over `vectors`, or over those of `allowed` positions."""

    def __init__(self, vectors: Vectors, questions: Vectors, allowed: Positions | None = None) -> None:
        self._vectors = vectors
        self._questions = questions
        self._allowed = None if allowed is None else set(allowed.tolist())
        best = np.full((len(questions), NEIGHBOURS), -np.inf, np.float32)
        for first in range(0, len(vectors), SLICE):
            part = np.asarray(vectors[first : first + SLICE])
            if allowed is not None:
                part = part[allowed[(allowed >= first) & (allowed < first + SLICE)] - first]
            scores = np.concatenate((best, questions @ part.T), axis=1)
            best = -np.partition(-scores, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        self._least = best.min(axis=1)

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Return the share of the ten best that are among the first ten of each question's `found` positions."""
        return float(np.mean([self._share(question, one) for question, one in enumerate(found)]))

    def _share(self, question: int, found: Sequence[int]) -> float:
        first = [n for n in dict.fromkeys(found[:NEIGHBOURS]) if self._allowed is None or n in self._allowed]
        if not first:
            return 0.0
        scores = np.asarray(self._vectors[first]) @ self._questions[question]
        return float(np.count_nonzero(scores >= self._least[question] - TOLERANCE)) / NEIGHBOURS
