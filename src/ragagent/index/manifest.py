"""The manifest: one small file whose atomic replacement publishes a store's index.

It names generations, oldest first, and counts the delta's rows and dead positions; bytes beyond those counts do not
exist yet. Positions are the generations laid end to end, then the delta. A reader notices a new one by `stat` alone.

Format 1 knew one generation and no checksums, and kept graphs in another shape. An index of it is called damaged: the
indexer makes it anew from SQLite.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ragagent.errors import Damaged
from ragagent.index import files, sealed

FORMAT = 2
NAME = "MANIFEST"

Stamp = tuple[int, int, int]  # mtime_ns, inode, size: what tells one manifest file from the next


class Part(NamedTuple):
    """One generation, as a manifest names it."""

    number: int
    rows: int


class Sums(NamedTuple):
    """Running CRC-32s of the delta's files, up to what the manifest counts."""

    vectors: int = 0
    rows: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a reader sees of one store: everything up to `seq`, in `parts` and the delta's rows counted here."""

    store: str
    seq: int
    parts: tuple[Part, ...]  # oldest first, never none; their rows, end to end, are the first positions
    delta_rows: int
    dead_rows: int  # dead positions, in any part or the delta
    sums: Sums
    commit: int  # Tantivy's, the one that went before this manifest
    model: str
    dimension: int
    published_at: float
    format: int = FORMAT

    @property
    def generation(self) -> int:
        """The newest generation's number: the delta beside it is the one that counts."""
        return self.parts[-1].number

    @property
    def generation_rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def positions(self) -> int:
        return self.generation_rows + self.delta_rows

    @property
    def rows(self) -> int:
        """How many rows are alive. A position dies once only, so this is a subtraction."""
        return self.positions - self.dead_rows


def encode(manifest: Manifest) -> bytes:
    return sealed.seal(dataclasses.asdict(manifest))


def decode(data: bytes) -> Manifest:
    """Return the manifest that `data` holds. Raises Damaged when one bit of it is not what was written."""
    fields = sealed.unseal(data)
    if fields.get("format") != FORMAT:
        raise Damaged(f"It is of format {fields.get('format')}; this version reads format {FORMAT}.")
    parts = tuple(Part(*part) for part in fields.pop("parts"))
    return Manifest(**fields | {"parts": parts, "sums": Sums(*fields["sums"])})


def read(store: Path) -> tuple[Stamp, Manifest] | None:
    """Return the store's manifest and its stamp; None when nothing was ever published. Raises Damaged."""
    try:
        descriptor = os.open(store / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # The stamp is the open file's own: a stat of the name could already belong to the next manifest.
    with open(descriptor, "rb") as file:
        stamp = _stamp(os.fstat(descriptor))
        try:
            return stamp, decode(file.read())
        except (Damaged, ValueError, TypeError, KeyError) as exc:
            raise Damaged(f"The manifest of store '{store.name}' is damaged: {exc}") from exc


def stamp(store: Path) -> Stamp | None:
    """Return the stamp of the manifest that stands now; None when there is none."""
    try:
        return _stamp(os.stat(store / NAME))
    except (FileNotFoundError, NotADirectoryError):
        return None


def publish(store: Path, manifest: Manifest) -> Manifest:
    """Make `manifest` the one that readers see, durably. All that it names is on disk before this is called."""
    manifest = dataclasses.replace(manifest, published_at=time.time())
    temporary = store / f"{NAME}.tmp"
    files.remove(temporary)
    files.write_file(temporary, encode(manifest))
    # A crash before the rename leaves the old manifest, and a .tmp that the next publish or open removes. After it the
    # new one is seen; after the directory's fsync it also survives a power cut.
    files.rename(temporary, store / NAME)
    files.sync(store)
    return manifest


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size
