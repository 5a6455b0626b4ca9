"""What one process hands on of its local tier: a file of its hottest entries, for those that have begun since.

    magic 3 | version 1 | digest 16 | msgpack, one after the other: (key, tags, plain form), the hottest first

It lies there for seconds only. It is foreign to its reader, like anything from a disk: another release may have
written it, and it may be cut short. So `unpack` gives the entries of what `pack` made, and nothing for anything else;
whether an entry is a value, the envelope says. Each bears its tags, so that what was erased meanwhile stays erased.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgpack

from ragagent.cache.erasing.tags import Tag

T = TypeVar("T")

MAX_BYTES = 16 * 1024 * 1024  # of keys, tags and values
SUFFIX = ".warm"
WISH = ".wish"
ENTRY_BYTES = 32  # more than msgpack puts around the parts of an entry

_MAGIC = b"RGW\x01"
_BODY_AT = len(_MAGIC) + 16
_MAX_FILE_BYTES = MAX_BYTES + _BODY_AT + ENTRY_BYTES


class Warm(NamedTuple):
    """One entry: an envelope in its plain form, its key, and the tags that it is filed under."""

    key: str
    tags: tuple[Tag, ...]
    plain: bytes

    @property
    def size(self) -> int:
        tags = sum(len(tag.store_id) + ENTRY_BYTES for tag in self.tags)
        return len(self.key) + tags + len(self.plain) + ENTRY_BYTES


def pack(entries: Iterable[Warm]) -> bytes:
    # One by one, here and in `unpack`: a call for all of them would keep every other thread waiting for 10 ms.
    body = b"".join(msgpack.packb(entry) for entry in entries)
    return b"".join((_MAGIC, _digest(body), body))


def unpack(data: bytes) -> list[Warm]:
    """Return the entries of what `pack` made; none for anything else. Never raises."""
    if len(data) > _MAX_FILE_BYTES or not data.startswith(_MAGIC):
        return []
    body = memoryview(data)[_BODY_AT:]
    if data[len(_MAGIC) : _BODY_AT] != _digest(body):
        return []
    try:
        return [
            Warm(_typed(key, str), tuple(_tag(*tag) for tag in tags), _typed(plain, bytes))
            for key, tags, plain in _unpacked(body)
        ]
    except (ValueError, TypeError, msgpack.UnpackException):
        return []  # The digest is right: written by a release with another idea of an entry.


def _unpacked(body: memoryview) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=_MAX_FILE_BYTES)
    unpacker.feed(body)
    return iter(unpacker)


def write(directory: Path, entries: Iterable[Warm]) -> Path:
    """Write a file that nobody sees before it is whole, and only we may read. Raises OSError.

    Not synced: after a power cut nobody wants it.
    """
    path = _new(directory, SUFFIX)
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(pack(entries))
        os.rename(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return path


def read(path: Path) -> list[Warm]:
    """Return the entries of a file; none where there is no such file or it is anything else."""
    try:
        with path.open("rb") as file:
            return unpack(file.read(_MAX_FILE_BYTES + 1))
    except OSError:
        return []


def fresh(directory: Path, since: float) -> list[Path]:
    """Return the files that were written at or after `since`, in Unix seconds, the oldest first."""
    return [path for written, path in _listed(directory) if written >= since and path.suffix == SUFFIX]


def wish(directory: Path) -> None:
    """Say that a process would like a file, and that nobody has left one. Raises OSError."""
    _new(directory, WISH).touch(mode=0o600)


def grant(directory: Path) -> bool:
    """Return whether somebody wishes for a file: of all that ask, one is told so."""
    for _, path in _listed(directory):
        if path.suffix == WISH:
            with contextlib.suppress(OSError):  # Another was quicker.
                path.unlink()
                return True
    return False


def clean(directory: Path, before: float) -> None:
    """Remove what was written before then, drafts too; and what claims to be written in the distant future."""
    after = time.time() + (time.time() - before)
    for written, path in _listed(directory):
        if not before <= written <= after:
            with contextlib.suppress(OSError):
                path.unlink()


def _new(directory: Path, suffix: str) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"{os.getpid()}-{time.time_ns()}{suffix}"


def _listed(directory: Path) -> list[tuple[float, Path]]:
    found = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # Another has removed it.
                found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    return sorted(found)


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _tag(store_id: object, written: object, shown: object) -> Tag:
    return Tag(_typed(store_id, str), _typed(written, int), _typed(shown, int))


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value
