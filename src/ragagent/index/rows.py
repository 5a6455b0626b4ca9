"""What is published: rows, as their ids and vectors in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragagent.errors import Invalid
from ragagent.index.dense import unit_vectors
from ragagent.index.files import Float32, Int64


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk for the index. `vector` (dimension,) is of unit length; `tokens` are joined by single spaces."""

    chunk_id: int
    document_id: int
    vector: Float32
    tokens: str


def columns(rows: Sequence[Row], dimension: int) -> tuple[Int64, Float32]:
    """Return the rows' ids (n, 2) and their vectors (n, dimension). Raises Invalid for a bad vector."""
    if not rows:
        return np.empty((0, 2), np.int64), np.empty((0, dimension), np.float32)
    if any(row.vector.shape != (dimension,) for row in rows):
        shape = next(row.vector.shape for row in rows if row.vector.shape != (dimension,))
        raise Invalid(f"A vector has shape {shape}; this store's vectors have {dimension} values.")
    ids = np.array([(row.chunk_id, row.document_id) for row in rows], np.int64)
    return ids, unit_vectors(np.stack([row.vector for row in rows]), dimension)
