"""One store's directory under the root: made, measured, removed. Its writer does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragagent.index import delta, files, generation, lexical, manifest, retention
from ragagent.index.delta import Delta
from ragagent.index.files import Int64
from ragagent.index.generation import Kind
from ragagent.index.manifest import Manifest, Part, Sums
from ragagent.index.retention import Retained


@dataclass(frozen=True, slots=True)
class GenerationStats:
    number: int
    rows: int
    kind: Kind
    bytes: int


@dataclass(frozen=True, slots=True)
class DiskStats:
    seq: int
    generation: int  # the newest one's number
    generations: tuple[GenerationStats, ...]  # oldest first
    retained: tuple[Retained, ...]  # newest first
    rows: int  # alive
    delta_rows: int
    dead_rows: int
    bytes: int
    published_at: float


def create(store: Path, model: str, dimension: int) -> Manifest:
    """Make an empty index at seq 0: generation 1, without a row. Raises StorageFull.

    Whatever lies there without a manifest is an earlier try that a crash cut short.
    """
    nothing = np.empty((0, 2), np.int64), np.empty((0, dimension), np.float32), np.empty(0, np.int64)
    with files.writing(f"The index of store '{store.name}'"):
        files.remove(store)
        store.mkdir(parents=True)
        empty = generation.new_index(0, dimension, hnsw_rows=1)
        generation.write(generation.generation_path(store, 1), empty, nothing[0])
        delta.create(store, 1, *nothing)
        lexical.create(store / lexical.NAME)
        files.sync(store.parent)
        files.sync(store)
        first = Manifest(store.name, 0, (Part(1, 0),), 0, 0, Sums(), 0, model, dimension, 0.0)
        return manifest.publish(store, first)


def remove(root: Path, store_id: str) -> None:
    """Remove a store's index, if there is one. Readers keep what they have mapped, and next time find nothing."""
    store = files.store_path(root, store_id)
    if not store.exists():
        return
    with files.writing(f"The index of store '{store_id}'"):
        # The manifest first: a crash after it leaves what `create` takes for an earlier try.
        files.remove(store / manifest.NAME)
        files.sync(store)
        files.remove(store)


def named_files(store: Path, current: Manifest) -> dict[str, int | None]:
    """Return what the manifest names, relative to `store`: of each file so many bytes count, None: all of them.

    The lexical index is not among it: that has a manifest of its own. Raises FileNotFoundError when the manifest is
    out of date.
    """
    folders = [generation.generation_path(store, part.number) for part in current.parts]
    immutable = {f"{folder.name}/{entry.name}": None for folder in folders for entry in folder.iterdir()}
    tail = delta.delta_path(store, current.generation).name
    return {**immutable, **{f"{tail}/{name}": length for name, length in delta.counted(current).items()}}


def chunk_ids(store: Path, current: Manifest) -> Int64:
    """Return the chunks in the files that the manifest names, dead ones included, ascending. Raises Damaged."""
    with files.reading(f"The index of store '{store.name}'"):
        rows = [generation.read_rows(generation.generation_path(store, p.number), p.rows) for p in current.parts]
        return np.unique(np.concatenate([part[:, 0] for part in (*rows, Delta.open(store, current).rows)]))


def disk_stats(root: Path, store_id: str) -> DiskStats | None:
    """Return what the store's index takes on disk; None when nothing was ever published. Raises Damaged."""
    store = files.store_path(root, store_id)
    found = manifest.read(store)
    if found is None:
        return None
    current = found[1]
    return DiskStats(
        seq=current.seq,
        generation=current.generation,
        generations=tuple(_generation_stats(store, part, current.dimension) for part in current.parts),
        retained=tuple(described for _, described in retention.retained(store, current)),
        rows=current.rows,
        delta_rows=current.delta_rows,
        dead_rows=current.dead_rows,
        bytes=files.bytes_under(store),
        published_at=current.published_at,
    )


def _generation_stats(store: Path, part: Part, dimension: int) -> GenerationStats:
    path = generation.generation_path(store, part.number)
    with files.reading(f"Generation {path.name} of store '{store.name}'"):
        kind = generation.kind_on_disk(path, part.rows, dimension)
    return GenerationStats(part.number, part.rows, kind, files.bytes_under(path))
