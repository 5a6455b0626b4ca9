"""The checksums of a generation: the length and CRC-32 of each of its files, in a small sealed file beside them.

CRC-32 by zlib: 3.9 GB/s here, so a generation of a million rows (1.3 GB) takes a third of a second.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ragagent.errors import Damaged
from ragagent.index import files, sealed

NAME = "CHECKSUMS"

_BLOCK = 16 * 1024 * 1024


class Checksum(NamedTuple):
    bytes: int
    crc: int


def of_file(path: Path) -> Checksum:
    """Read all of the file. Raises FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        crc = 0
        if size:
            with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as view, memoryview(view) as data:
                for start in range(0, size, _BLOCK):
                    with data[start : start + _BLOCK] as block:
                        crc = zlib.crc32(block, crc)
        return Checksum(size, crc)
    finally:
        os.close(descriptor)


def write(path: Path, names: Iterable[str]) -> None:
    """Note the files `names` of the directory `path`, durably."""
    files.write_file(path / NAME, sealed.seal({name: of_file(path / name) for name in names}))


def read(path: Path) -> dict[str, Checksum]:
    """Return what was noted, having looked at the files' lengths. Raises FileNotFoundError, and Damaged."""
    try:
        noted = {name: Checksum(*pair) for name, pair in sealed.unseal((path / NAME).read_bytes()).items()}
    except Damaged as exc:
        raise Damaged(f"File '{path.name}/{NAME}' is damaged: {exc}") from exc
    for name, checksum in noted.items():
        size = (path / name).stat().st_size
        if size != checksum.bytes:
            raise Damaged(f"File '{path.name}/{name}' has {size} bytes; {checksum.bytes} were written.")
    return noted
