"""A store's index as it was at one moment, held by open files, for whoever copies it while the writer goes on.

An open file stays what it was, whatever happens to its name: a generation is never changed, a delta only grows behind
what the manifest counts, and Tantivy writes each file once. So everything that one manifest names is opened first, and
nothing has to be locked, or copied again, once that has succeeded. What has gone between the manifest and the opening
means that there is a newer manifest, and another try.

The lexical files are opened after the manifest: like a reader's, their view may be newer than it and is never older. A
publish commits to Tantivy a moment before it names the commit; another look mostly finds the two that belong together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragagent.errors import Damaged, Unavailable
from ragagent.index import directory, lexical, manifest
from ragagent.index.manifest import Manifest

_TRIES = 20
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Part:
    """The first `bytes` of a file, by an open descriptor. `name` is relative to the store's directory."""

    name: str
    bytes: int
    descriptor: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    manifest: Manifest
    parts: tuple[Part, ...]


@contextmanager
def taken(store: Path) -> Iterator[Snapshot | None]:
    """Hold what the store's newest manifest names until the block ends; None: nothing was ever published.

    Raises Damaged when something is missing under a manifest that stands, or is shorter than it counts; Unavailable.
    """
    with ExitStack() as stack:
        yield _take(store, stack)


def stores(root: Path) -> list[Path]:
    """Return the directories of indexes under `root`."""
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _take(store: Path, stack: ExitStack) -> Snapshot | None:
    for left in reversed(range(_TRIES)):
        last = left == 0
        seen = manifest.stamp(store)
        try:
            with ExitStack() as opened:
                snapshot, commit = _opened(store, opened)
                if commit == snapshot.manifest.commit or last:
                    stack.push(opened.pop_all())
                    return snapshot
            time.sleep(_PAUSE_SECONDS)
        except FileNotFoundError as exc:
            if seen is None:
                return None
            if manifest.stamp(store) == seen:
                raise Damaged(f"The index of store '{store.name}' lacks '{Path(exc.filename).name}'.") from exc
        except OSError as exc:
            raise Unavailable(f"The index of store '{store.name}' cannot be read: {exc.strerror}.") from exc
    raise Unavailable(f"The index of store '{store.name}' changes too fast to be copied.", retry_after=1)


def _opened(store: Path, stack: ExitStack) -> tuple[Snapshot, int]:
    """Open everything; return it, and which of Tantivy's commits that is."""
    # By the directory itself and not by its name: an index that is thrown away and made anew is another directory.
    folder = _open(store, stack, os.O_DIRECTORY)
    here = Path(f"/proc/self/fd/{folder}")
    own = _part(here, manifest.NAME, None, stack)
    try:
        current = manifest.decode(_read(own))
    except (Damaged, ValueError, TypeError) as exc:
        raise Damaged(f"The manifest of store '{store.name}' is damaged: {exc}") from exc
    parts = [own]
    parts += [_part(here, name, length, stack) for name, length in directory.named_files(here, current).items()]
    commit = _part(here, f"{lexical.NAME}/{lexical.META}", None, stack)
    parts.append(commit)
    try:
        number, committed = lexical.committed(_read(commit))
    except (ValueError, KeyError, TypeError) as exc:
        raise Damaged(f"The lexical index of store '{store.name}' has a commit that cannot be read.") from exc
    parts += [_part(here, f"{lexical.NAME}/{name}", None, stack) for name in committed]
    return Snapshot(current, tuple(parts)), number


def _part(folder: Path, name: str, length: int | None, stack: ExitStack) -> Part:
    descriptor = _open(folder / name, stack)
    size = os.fstat(descriptor).st_size
    if length is not None and size < length:
        raise Damaged(f"File '{name}' has {size} bytes; its manifest counts {length}.")
    return Part(name, size if length is None else length, descriptor)


def _open(path: Path, stack: ExitStack, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    stack.callback(os.close, descriptor)
    return descriptor


def _read(part: Part) -> bytes:
    return os.pread(part.descriptor, part.bytes, 0)
