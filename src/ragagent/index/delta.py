"""The delta: rows newer than the newest generation, appended by the one writer and mapped by the readers.

    NNNNNN.delta/vectors.f32    (n, dimension)
    NNNNNN.delta/rows.i64       (n, 2): chunk id, document id
    NNNNNN.delta/dead.i64       (n): positions that no longer count, of any generation or the delta itself

Only what a manifest counts exists. Appends go to the offset that the counts give, so whatever a crash left beyond it is
overwritten by the next one; no reader ever maps that far.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ragagent.errors import Damaged
from ragagent.index import files
from ragagent.index.files import Float32, Int64
from ragagent.index.manifest import Manifest, Sums

_VECTORS = "vectors.f32"
_ROWS = "rows.i64"
_DEAD = "dead.i64"


class Delta:
    """The delta's rows up to the counts of one manifest, mapped; its dead positions, copied, for they are few."""

    def __init__(self, rows: Int64, vectors: Float32, dead: Int64, sums: Sums) -> None:
        self.rows = rows
        self.vectors = vectors
        self.dead = dead
        self.sums = sums

    @classmethod
    def open(cls, store: Path, manifest: Manifest, known: Delta | None = None) -> Delta:
        """Map what `manifest` counts, and check it, but for what was checked when `known`, the same delta, was opened.

        Raises FileNotFoundError, and Damaged when there is less, or it is not what was written.
        """
        path = delta_path(store, manifest.generation)
        vectors = files.mapped(path / _VECTORS, np.float32, manifest.delta_rows, manifest.dimension)
        rows = files.mapped(path / _ROWS, np.int64, manifest.delta_rows, 2)
        dead = files.mapped(path / _DEAD, np.int64, manifest.dead_rows, 1)[:, 0].copy()
        if known is None or len(known.rows) > len(rows) or len(known.dead) > len(dead):
            sums = extended(Sums(), rows, vectors, dead)
        else:
            counted, died = len(known.rows), len(known.dead)
            sums = extended(known.sums, rows[counted:], vectors[counted:], dead[died:])
        if sums != manifest.sums:
            raise Damaged(f"The delta of generation {manifest.generation} does not match its checksums.")
        return cls(rows, vectors, dead, sums)


def extended(sums: Sums, rows: Int64, vectors: Float32, dead: Int64) -> Sums:
    """Return the sums over what stands already and these behind it."""
    return Sums(
        zlib.crc32(vectors.data, sums.vectors), zlib.crc32(rows.data, sums.rows), zlib.crc32(dead.data, sums.dead)
    )


def delta_path(store: Path, generation: int) -> Path:
    return store / f"{generation:06d}.delta"


def counted(manifest: Manifest) -> dict[str, int]:
    """Return how many bytes of each of the delta's files exist, by `manifest`."""
    return {
        _VECTORS: manifest.delta_rows * manifest.dimension * 4,
        _ROWS: manifest.delta_rows * 16,
        _DEAD: manifest.dead_rows * 8,
    }


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
    for name, length in counted(manifest).items():
        files.truncate(path / name, length)
