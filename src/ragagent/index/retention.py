"""Superseded manifests that are kept for a way back, as `MANIFEST.NNNNNN`, with the generations that they name.

A compaction notes the manifest that it replaces, under its newest generation's number, before it publishes its own: a
crash in between leaves a note of what is current, which is no harm. What all notes together keep on disk beyond the
current index is bounded; the oldest go first, and a note goes before its generations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragagent.errors import Damaged
from ragagent.index import delta, files, generation, manifest
from ragagent.index.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Retained:
    """One manifest that could be published again, and what it alone takes on disk."""

    number: int
    seq: int
    rows: int
    bytes: int
    published_at: float


def keep(store: Path, superseded: Manifest) -> None:
    """Note the manifest, durably but for the directory's own fsync."""
    path = _path(store, superseded.generation)
    temporary = path.with_name(f"{path.name}.tmp")
    files.remove(temporary)
    files.write_file(temporary, manifest.encode(superseded))
    files.rename(temporary, path)


def read(store: Path, number: int) -> Manifest | None:
    """Return the manifest noted under `number`; None when there is none, or not what was written."""
    try:
        return manifest.decode(_path(store, number).read_bytes())
    except (FileNotFoundError, Damaged, ValueError, TypeError, KeyError):
        return None


def retained(store: Path, current: Manifest) -> list[tuple[Manifest, Retained]]:
    """Return what is noted, newest first. Bytes that several need count with the newest of them."""
    counted = directories(store, current)
    found: list[tuple[Manifest, Retained]] = []
    for number in sorted(_numbers(store), reverse=True):
        noted = read(store, number)
        # A note of the current generation, or of one that a return left behind, is no way back.
        if noted is None or noted.generation != number or number >= current.generation:
            continue
        alone = directories(store, noted) - counted
        counted |= alone
        size = sum(files.bytes_under(path) for path in alone)
        found.append((noted, Retained(number, noted.seq, noted.rows, size, noted.published_at)))
    return found


def trim(store: Path, current: Manifest, limit: int) -> set[Path]:
    """Drop the oldest notes until the rest keeps at most `limit` bytes; return the directories that the rest needs."""
    needed: set[Path] = set()
    stay: set[int] = set()
    total = 0
    for noted, described in retained(store, current):
        total += described.bytes
        if total > limit:
            break
        stay.add(described.number)
        needed |= directories(store, noted)
    for number in _numbers(store) - stay:
        files.remove(_path(store, number))
    return needed


def directories(store: Path, named: Manifest) -> set[Path]:
    """Return the generations' directories and the delta's, as the manifest names them."""
    return {
        *(generation.generation_path(store, part.number) for part in named.parts),
        delta.delta_path(store, named.generation),
    }


def _path(store: Path, number: int) -> Path:
    return store / f"{manifest.NAME}.{number:06d}"


def _numbers(store: Path) -> set[int]:
    suffixes = (path.name.partition(".")[2] for path in store.glob(f"{manifest.NAME}.*"))
    return {int(suffix) for suffix in suffixes if suffix.isdigit()}
