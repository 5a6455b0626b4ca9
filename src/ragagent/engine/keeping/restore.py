"""A backup put in place. Nothing is until all of it has been read, unpacked and found whole.

It is unpacked into `restore.tmp` in the data directory itself, which may be a mount point whose parent is another's;
then three renames, the database's last: a directory without it is one that nobody has written to yet. Whoever is
killed before that runs the same command again.

The index in an archive is older than its database. What was erased in between has left no trace in the database: its
tombstones were cleared when the live index had forgotten it. So what the restored index shows and the database does not
know gets a tombstone, and the first publish takes it out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragagent.config import Data
from ragagent.engine.keeping import archive
from ragagent.engine.keeping.archive import Advance, Listing, Place
from ragagent.errors import Conflict, Damaged, NotFound
from ragagent.index import directory, files, lock, manifest
from ragagent.index import snapshot as indexes
from ragagent.index.files import Int64
from ragagent.index.lexical import NAME, Lexical, LexicalView
from ragagent.store import snapshot
from ragagent.store.database import newest_schema
from ragagent.store.snapshot import Contents

_STAGING = "restore.tmp"
_PIDFILE = "supervisor.pid"
# What may lie in a directory that has no data: our own unfinished try, and what a file system or a server leaves.
_NO_DATA = {
    _STAGING,
    "lost+found",
    _PIDFILE,
    "control.sock",
    "indexer.sock",
    "sessions.lock",
    "limits",
    "warm",
}


@dataclass(frozen=True, slots=True)
class Restored:
    listing: Listing
    forgotten: int  # chunks that the index still showed and the database no longer knew


def verify(path: Path, advance: Advance) -> Listing:
    """Read all of an archive and check it as `restore` would, changing nothing. Raises as `restore` does."""
    with _readable(path), tempfile.TemporaryDirectory(prefix="ragagent-verify-") as room:
        listing, _ = _checked(path, lambda name: Path(room, name) if name == archive.DATABASE else None, advance)
    return listing


def restore(path: Path, data: Data, advance: Advance) -> Restored:
    """Put the backup `path` into the data directory, which is made if it is missing.

    Raises Conflict when there is data in it, a server runs on it, or only a newer version can read the archive; Damaged
    when the archive is; StorageFull, Unavailable. After any of them there is no database in the directory.
    """
    with _readable(path), _place(data) as staging:
        listing, contents = _checked(path, staging.joinpath, advance)
        forgotten = _reconcile(staging, contents)
        snapshot.leap(staging / archive.DATABASE)
        _put(staging, data)
    return Restored(listing, forgotten)


def _checked(path: Path, place: Place, advance: Advance) -> tuple[Listing, Contents]:
    database = place(archive.DATABASE)
    assert database is not None, "only a file can be checked"
    with files.writing(f"What '{path.name}' holds"):
        listing = archive.read(path, advance, place)
    if listing.schema > newest_schema():
        raise Conflict(
            f"The backup was made by RAGAgent {listing.ragagent} with schema {listing.schema}; this version knows "
            f"schemas up to {newest_schema()}. Restore it with that version or a newer one."
        )
    contents = snapshot.check(database)
    if (contents.schema, contents.seq) != (listing.schema, listing.seq):
        raise Damaged("The database in the archive is not the one that its listing speaks of.")
    return listing, contents


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise NotFound(f"There is no backup '{path}'.")
    try:
        yield
    except Damaged as exc:
        raise Damaged(f"The backup '{path}' is damaged, and nothing was changed: {exc.message}", code=exc.code) from exc


@contextmanager
def _place(data: Data) -> Iterator[Path]:
    """Give an empty staging directory in a data directory without data; removed, whatever becomes of it."""
    made = not data.path.exists()
    with files.writing(f"Data directory '{data.dir}'"):
        data.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = data.path / _STAGING
        _refuse_data(data, staging)
        files.remove(staging)
        staging.mkdir(mode=0o700)
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if made:
            with suppress(OSError):  # Somebody has put something there meanwhile.
                data.path.rmdir()
        raise
    with files.writing(f"Data directory '{data.dir}'"):
        files.remove(staging)


def _refuse_data(data: Data, staging: Path) -> None:
    pidfile = data.path / _PIDFILE
    with suppress(OSError):
        if pidfile.exists() and (held := lock.shared(pidfile)) is not None:
            held.close()
        elif pidfile.exists():
            raise Conflict(
                f"A server runs on data directory '{data.dir}'. Stop it, and restore into another directory."
            )
    found = {entry.name for entry in data.path.iterdir()} - _NO_DATA
    if staging.exists() and not data.database.exists():
        found -= {archive.INDEX, archive.PEPPER}  # Put there by a restore that was killed before its last rename.
    if found:
        raise Conflict(
            f"Data directory '{data.dir}' is not empty: it holds '{min(found)}'. Restore into a new one; nothing is "
            "overwritten."
        )


def _put(staging: Path, data: Data) -> None:
    with files.writing(f"Data directory '{data.dir}'"):
        for name in (archive.INDEX, archive.PEPPER):
            files.remove(data.path / name)
            if (staging / name).exists():
                files.rename(staging / name, data.path / name)
        _sync_folders(data.index)
        files.sync(data.path)
        try:
            os.link(staging / archive.DATABASE, data.database)  # Not a rename, which would replace what has come.
        except FileExistsError:
            raise Conflict(f"Somebody has put a database into '{data.dir}' meanwhile; it stays.") from None
        files.sync(data.path)


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        files.sync(Path(folder))


def _reconcile(staging: Path, contents: Contents) -> int:
    """Bury what the unpacked indexes show and the database does not know; return how many chunks that are."""
    total = 0
    for path in indexes.stores(staging / archive.INDEX):
        store_id = path.name.partition("-")[0]
        try:
            shown = manifest.read(path)
            if shown is None or store_id not in contents.stores:
                files.remove(path)  # Its store was erased before the database was copied.
                continue
            find = partial(_between, directory.chunk_ids(path, shown[1]), Lexical(path / NAME).view())
            total += snapshot.bury_unknown(staging / archive.DATABASE, store_id, shown[1].seq, find)
        except Damaged as exc:
            if exc.code != Damaged.code:
                raise  # It is the database.
            files.remove(path)  # As it was in the live directory: the indexer builds it again.
    return total


def _between(chunks: Int64, view: LexicalView, first: int, last: int) -> list[int]:
    """Return the chunks with ids from `first` to `last` that either leg shows."""
    low, high = np.searchsorted(chunks, (first, last + 1))
    found: list[int] = np.union1d(chunks[low:high], view.chunk_ids(first, last)).tolist()
    return found
