"""The manifest: one small file whose atomic replacement publishes a store's index.

It names a generation and counts the delta's rows and dead positions; bytes beyond those counts do not exist yet. A
reader notices a new one by `stat` alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from ragagent.errors import Damaged
from ragagent.index import files

FORMAT = 1
NAME = "MANIFEST"

Stamp = tuple[int, int, int]  # mtime_ns, inode, size: what tells one manifest file from the next


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a reader sees of one store: everything up to `seq`, in `generation` and the rows counted here."""

    store: str
    seq: int
    generation: int
    generation_rows: int
    delta_rows: int
    dead_rows: int
    model: str
    dimension: int
    published_at: float
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """How many rows are alive. A position dies once only, so this is a subtraction."""
        return self.generation_rows + self.delta_rows - self.dead_rows


def encode(manifest: Manifest) -> bytes:
    body = json.dumps(dataclasses.asdict(manifest), ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(data: bytes) -> Manifest:
    """Return the manifest that `data` holds. Raises Damaged when one bit of it is not what was written."""
    body = data[9:-1]
    # The checksum is compared as it is written, so that its own letters are held as tightly as the rest.
    if data != b"%08x %s\n" % (zlib.crc32(body), body):
        raise Damaged(f"A manifest of {len(data)} bytes does not match its checksum.")
    fields = json.loads(body)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise Damaged(f"A manifest is not of format {FORMAT}, the one that this version reads.")
    return Manifest(**fields)


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
        except (Damaged, ValueError, TypeError) as exc:
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
