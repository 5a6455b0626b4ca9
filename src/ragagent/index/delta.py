"""The delta: rows newer than the generation, appended by the one writer and mapped by the readers.

    NNNNNN.delta/vectors.f32    (n, dimension)
    NNNNNN.delta/rows.i64       (n, 2): chunk id, document id
    NNNNNN.delta/dead.i64       (n): positions that no longer count, below generation_rows the generation's own

Only what a manifest counts exists. Appends go to the offset that the counts give, so whatever a crash left beyond it is
overwritten by the next one; no reader ever maps that far.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragagent.index import files
from ragagent.index.files import Float32, Int64
from ragagent.index.manifest import Manifest

_VECTORS = "vectors.f32"
_ROWS = "rows.i64"
_DEAD = "dead.i64"


class Delta:
    """The delta's rows up to the counts of one manifest, mapped; its dead positions, copied, for they are few."""

    def __init__(self, rows: Int64, vectors: Float32, dead: Int64) -> None:
        self.rows = rows
        self.vectors = vectors
        self.dead = dead

    @classmethod
    def open(cls, store: Path, manifest: Manifest) -> Delta:
        """Map what `manifest` counts. Raises FileNotFoundError, and Damaged when there is less."""
        path = delta_path(store, manifest.generation)
        return cls(
            files.mapped(path / _ROWS, np.int64, manifest.delta_rows, 2),
            files.mapped(path / _VECTORS, np.float32, manifest.delta_rows, manifest.dimension),
            files.mapped(path / _DEAD, np.int64, manifest.dead_rows, 1)[:, 0].copy(),
        )


def delta_path(store: Path, generation: int) -> Path:
    return store / f"{generation:06d}.delta"


def create(store: Path, generation: int, rows: Int64, vectors: Float32, dead: Int64) -> None:
    """Write the delta of a new generation, durably, before any manifest names it."""
    path = delta_path(store, generation)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.mkdir()
    for name, data in ((_ROWS, rows), (_VECTORS, vectors), (_DEAD, dead)):
        files.write_at(temporary / name, 0, data)
    files.sync(temporary)
    files.rename(temporary, path)


def append(store: Path, manifest: Manifest, rows: Int64, vectors: Float32, dead: Int64) -> None:
    """Write rows and dead positions behind those that `manifest` counts, durably; the next manifest counts them."""
    path = delta_path(store, manifest.generation)
    if len(rows):
        files.write_at(path / _VECTORS, manifest.delta_rows * manifest.dimension * 4, vectors)
        files.write_at(path / _ROWS, manifest.delta_rows * 16, rows)
    if len(dead):
        files.write_at(path / _DEAD, manifest.dead_rows * 8, dead)


def cut(store: Path, manifest: Manifest) -> None:
    """Drop what a crash left beyond the manifest's counts. Raises Damaged when there is less than they say."""
    path = delta_path(store, manifest.generation)
    files.truncate(path / _VECTORS, manifest.delta_rows * manifest.dimension * 4)
    files.truncate(path / _ROWS, manifest.delta_rows * 16)
    files.truncate(path / _DEAD, manifest.dead_rows * 8)
