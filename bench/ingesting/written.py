"""What the indexer writes: all of it, from the kernel, and how much of that is index."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import machine

LOOK_SECONDS = 0.05


@dataclass
class Written:
    total: int = 0  # bytes that the indexer sent to the disk: SQLite's log and file, and the index
    index: int = 0  # bytes by which files under index/ grew


@contextmanager
def watching(indexer: int, index: Path) -> Iterator[Written]:
    """Yield what was written during the block, filled in at its end.

    Files of an index only ever grow, or are new; so the growth of all of them is what was written, but for those that
    live shorter than one look.
    """
    found = Written()
    is_over = threading.Event()
    sizes = _sizes(index)
    before = machine.written_bytes(indexer)

    def look() -> None:
        while not is_over.wait(LOOK_SECONDS):
            for inode, size in _sizes(index).items():
                found.index += max(size - sizes.get(inode, 0), 0)
                sizes[inode] = max(size, sizes.get(inode, 0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()
        found.total = machine.written_bytes(indexer) - before


def _sizes(directory: Path) -> dict[int, int]:
    found: dict[int, int] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found |= _sizes(Path(entry.path))
                else:
                    status = entry.stat(follow_symlinks=False)
                    found[status.st_ino] = status.st_size
    except FileNotFoundError:  # merged away, or replaced, between two looks
        pass
    return found
