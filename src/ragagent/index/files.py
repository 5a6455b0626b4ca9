"""The index's hold on the disk: arrays mapped from files, bytes made durable, foreign errors translated.

Every effect that a publish has on the disk, but for Tantivy's own, goes through a function here: the crash tests stop
a writer before each of them in turn.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ragagent.errors import Damaged, Invalid, RagagentError, StorageFull, Unavailable

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", np.int64, np.int32, np.float32)

_STORE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def store_path(root: Path, store_id: str) -> Path:
    """Return where the store lives. Raises Invalid for an id that is not one path segment of letters and digits."""
    if not _STORE_ID.fullmatch(store_id):
        raise Invalid(f"Store id '{store_id}' must be 1 to 128 letters, digits, '_' and '-'.")
    return root / store_id


def mapped(path: Path, kind: type[_Scalar], rows: int, columns: int) -> npt.NDArray[_Scalar]:
    """Return the first `rows` rows of the file as a read-only array of shape (rows, columns), shared between processes.

    Raises FileNotFoundError, and Damaged when the file is shorter than that: touching a page beyond the end of a
    mapped file kills the process, so the length is checked here, before anyone can.
    """
    length = rows * columns * np.dtype(kind).itemsize
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size < length:
            raise Damaged(f"File '{path.parent.name}/{path.name}' has {size} bytes; its manifest counts {length}.")
        if length == 0:  # mmap refuses a length of zero.
            return np.empty((rows, columns), kind)
        view = mmap.mmap(descriptor, length, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(view, kind).reshape(rows, columns)


def write_at(path: Path, offset: int, data: npt.NDArray[Any]) -> None:
    """Write the array's bytes at `offset` and make them durable; creates the file."""
    left = memoryview(data.tobytes())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while left:
            written = os.pwrite(descriptor, left, offset)
            left, offset = left[written:], offset + written
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new small file and make it durable, stamped with the clock's own nanoseconds.

    The kernel stamps files by its tick (4 ms) and gives a freed inode away at once: two files within a tick could
    bear the same name, inode, size and time, and a reader that looks at those would miss the second.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        now = time.time_ns()
        os.utime(descriptor, ns=(now, now))
        os.fsync(descriptor)


def truncate(path: Path, length: int) -> None:
    """Cut off what stands after `length` bytes. Raises Damaged when there are fewer."""
    size = path.stat().st_size
    if size < length:
        raise Damaged(f"File '{path.parent.name}/{path.name}' has {size} bytes; its manifest counts {length}.")
    if size > length:
        os.truncate(path, length)


def sync(path: Path) -> None:
    """Make a file's bytes durable, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    os.rename(source, target)


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bytes_under(path: Path) -> int:
    """Return how many bytes the files under `path` take; what vanishes meanwhile takes none."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += (
                    os.stat(os.path.join(folder, name)).st_blocks * 512
                )  # st_blocks counts these, whatever the disk
    return total


@contextmanager
def reading(thing: str) -> Iterator[None]:
    """Translate what opening and reading may raise: Damaged, unless it is the machine's trouble and not the data's.

    The difference matters: Damaged has the indexer throw the files away and make them anew from SQLite.
    """
    try:
        yield
    except FileNotFoundError as exc:
        raise Damaged(f"{thing} lacks '{Path(exc.filename).name}'.") from exc
    except (OSError, RuntimeError, ValueError) as exc:  # faiss raises RuntimeError, Tantivy ValueError.
        raise _kind(exc, otherwise=Damaged)(f"{thing} cannot be read: {_reason(exc)}.") from exc


@contextmanager
def writing(thing: str) -> Iterator[None]:
    """Translate what the disk, and the libraries that write to it, may raise: StorageFull, or else Unavailable."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise _kind(exc, otherwise=Unavailable)(f"{thing} cannot be written: {_reason(exc)}.") from exc


def _kind(exc: Exception, otherwise: type[RagagentError]) -> type[RagagentError]:
    """Return what `exc` means. The libraries give the system's error as text only, in the middle of their own."""
    if any(_names(exc, number) for number in _FULL):
        return StorageFull
    if any(_names(exc, number) for number in _PASSING):
        return Unavailable
    return otherwise


def _names(exc: Exception, number: int) -> bool:
    return exc.errno == number if isinstance(exc, OSError) else os.strerror(number) in str(exc)


def _reason(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc).rstrip(".")
