"""The end of a log file, and what is written to it from then on, whoever moves it away or cuts it short meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ragagent.errors import Unavailable

_BLOCK_BYTES = 65_536


class Tail:
    """Reads one file by its path. Not a byte of what is appended is lost to a rotation between two calls of `fresh`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)
        self._begun = b""  # a line whose end is still to come
        self._is_moved = False

    def close(self) -> None:
        self._file.close()

    def last(self, count: int) -> list[str]:
        """Return the last lines that there are now. `fresh` goes on behind them."""
        end = start = self._file.seek(0, os.SEEK_END)
        found = b""
        # One more line end than lines: the first line found may have begun before its block.
        while start > 0 and found.count(b"\n") <= count:
            size = min(_BLOCK_BYTES, start)
            start -= size
            found = os.pread(self._file.fileno(), size, start) + found
        self._file.seek(end)
        *lines, self._begun = found.split(b"\n")
        return [_decoded(line) for line in lines[max(len(lines) - count, 0) :]]

    def fresh(self) -> list[str]:
        """Return the lines that have been completed since the last call."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._begun = b""
        lines = self._completed()
        if not _is_at(self._path, self._file):
            # Others may still write to the old file, until they hear of the new one too: it is left one call later.
            if self._is_moved:
                lines += self._left()
            self._is_moved = not self._is_moved
        return lines

    def _completed(self) -> list[str]:
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        return [_decoded(line) for line in lines]

    def _left(self) -> list[str]:
        """Go on with the file that has taken the path."""
        lines = [_decoded(self._begun)] if self._begun else []
        successor = _opened(self._path)
        self._file.close()
        self._file, self._begun = successor, b""
        return lines + self._completed()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as exc:
        raise Unavailable(f"The log file '{path}' cannot be read: {exc.strerror}.") from exc


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the path still names the file. One that was moved away and has no successor yet counts as there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return True


def _decoded(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")
