"""Every byte that a store's manifest names, read and compared with its checksum. Changes nothing.

Safe beside the writer and beside readers: generations are locked shared while they are read, and what was found wrong
under a manifest that has been replaced meanwhile is looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragagent.errors import Damaged
from ragagent.index import files, generation, lexical_files, manifest
from ragagent.index.delta import Delta
from ragagent.index.generation import Generation, Vanished
from ragagent.index.lexical import META
from ragagent.index.lexical import NAME as LEXICAL
from ragagent.index.manifest import Manifest, Part

_LOOKS = 10
_PAUSE_SECONDS = 0.5  # A publish commits to Tantivy a moment before it names the commit.


def verify(root: Path, index_name: str) -> list[str]:
    """Return what is wrong with the index, one sentence each; nothing for one that was never made.

    Raises Invalid for a name that can be none.
    """
    store = files.store_path(root, index_name)
    if not store.is_dir():
        return []
    checked: dict[Part, list[str]] = {}  # Generations do not change: each is read once.
    problems: list[str] = []
    for _ in range(_LOOKS):
        before = _state(store)
        problems = list(_problems(store, checked))
        if not problems:
            break
        time.sleep(_PAUSE_SECONDS)
        if _state(store) == before:
            break
    return problems


def _state(store: Path) -> object:
    meta = store / LEXICAL / META
    return manifest.stamp(store), meta.stat().st_mtime_ns if meta.exists() else 0


def _problems(store: Path, checked: dict[Part, list[str]]) -> Iterator[str]:
    try:
        found = manifest.read(store)
    except Damaged as exc:
        yield exc.message
        return
    if found is None:
        yield f"The index '{store.name}' has no manifest."
        return
    current = found[1]
    for part in current.parts:
        if part not in checked:
            checked[part] = list(_in_generation(store, part, current.dimension))
        yield from checked[part]
    yield from _in_delta(store, current)
    yield from lexical_files.check(store / LEXICAL, current.commit, current.rows)


def _in_generation(store: Path, part: Part, dimension: int) -> Iterator[str]:
    try:
        opened = Generation.open(store, part, dimension)
    except Vanished:
        yield f"Generation {part.number:06d} is missing, or its lock file is."
        return
    except Damaged as exc:
        yield exc.message
        return
    try:
        generation.check(store, part.number, vectors=True)
        documents, chunks = opened.rows[:, 1], opened.rows[:, 0]
        steps, within = np.diff(documents), np.diff(chunks)
        if not bool(np.all((steps > 0) | (steps == 0) & (within > 0))):
            yield f"The rows of generation {part.number:06d} are out of order."
    except Damaged as exc:
        yield exc.message
    finally:
        opened.release()


def _in_delta(store: Path, current: Manifest) -> Iterator[str]:
    try:
        with files.reading(f"The delta of generation {current.generation:06d}"):
            found = Delta.open(store, current)
    except Damaged as exc:
        yield exc.message
        return
    positions = np.unique(found.dead)
    if len(positions) != len(found.dead) or np.any(positions < 0) or np.any(positions >= current.positions):
        yield f"The delta of generation {current.generation:06d} has dead positions twice, or where no row stands."
