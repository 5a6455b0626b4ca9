"""A backup: one verified file, made while the server runs or not.

The index first, the database after it: what the archive's index shows, its database knows, and the indexer publishes
the difference when the restored server starts. Nobody waits meanwhile, neither readers nor writers; each store's index
is as of its own moment, the database as of one later than all of them.

The database is copied beside the archive first, since a tar must know a size before it has the bytes, and since only a
file can be checked. Until the archive has been read back, it has no name that anyone would take for a backup's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragagent import __version__
from ragagent.config import Data
from ragagent.engine.keeping import archive
from ragagent.engine.keeping.archive import Advance, Listing, Writer
from ragagent.errors import Conflict, Damaged, NotFound, StorageFull, Unavailable
from ragagent.index import files
from ragagent.index import snapshot as indexes
from ragagent.store import snapshot
from ragagent.store.database import REMEDY
from ragagent.store.snapshot import Contents


@dataclass(frozen=True, slots=True)
class Backup:
    """What was made. `left_out` names the stores whose index was damaged: it is built again after a restore."""

    path: Path
    bytes: int
    listing: Listing
    left_out: tuple[str, ...]


def create(data: Data, out: Path, *, with_index: bool, advance: Advance) -> Backup:
    """Write a backup of the data directory to the new file `out`, or into the directory `out` under the time's name.

    Raises Conflict when the file exists, NotFound without a database, Damaged (`database_damaged`) when the database
    is, StorageFull, Unavailable. After any of them, and after Ctrl-C, nothing is left of it.
    """
    if not data.database.is_file():
        raise NotFound(f"There is no database in data directory '{data.dir}'.")
    created_at = int(time.time())
    out = _named(out, created_at)
    with _workshop(out) as workshop, _written(out):
        draft = workshop / out.name
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            writer = Writer(file, created_at, advance)
            stores, left_out = _add_index(writer, data) if with_index else ({}, ())
            contents = _add_database(writer, data, workshop, advance)
            if data.pepper.is_file():
                writer.add_path(archive.PEPPER, data.pepper)
            listing = writer.finish(Listing(__version__, contents.schema, created_at, contents.seq, stores))
            file.flush()
            os.fsync(descriptor)
        if archive.read(draft, advance) != listing:
            raise Damaged("The backup, read back, is not what was written; suspect the disk.")
        files.rename(draft, out)
        files.sync(out.parent)
    return Backup(out, out.stat().st_size, listing, left_out)


def size(data: Data, *, with_index: bool) -> int:
    """Return about how many bytes `create` will tell of: the index twice, and the database three times."""
    index = files.bytes_under(data.index) if with_index else 0
    return 2 * index + (3 * data.database.stat().st_size if data.database.is_file() else 0)


def _named(out: Path, created_at: int) -> Path:
    if out.is_dir():
        out = out / time.strftime("ragagent-%Y%m%d-%H%M%S.tar.zst", time.gmtime(created_at))
    if out.exists() or out.is_symlink():
        raise Conflict(f"'{out}' exists already; a backup replaces nothing.")
    return out


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """Give a directory of our own beside `out`, so that a rename is all that is missing in the end."""
    try:
        workshop = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as exc:
        raise Unavailable(f"Nothing can be written to '{out.parent}': {exc.strerror}.") from exc
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop)


@contextmanager
def _written(out: Path) -> Iterator[None]:
    try:
        with files.writing(f"The backup '{out}'"):
            yield
    except StorageFull as exc:
        raise StorageFull(f"The disk that holds '{out.parent}' is full; no backup was made.") from exc


def _add_index(writer: Writer, data: Data) -> tuple[dict[str, int], tuple[str, ...]]:
    """Add what each store's manifest names; return up to which seq each shows, and which ones are damaged."""
    shown: dict[str, int] = {}
    left_out: list[str] = []
    for store in indexes.stores(data.index):
        try:
            with indexes.taken(store) as found:
                if found is None:
                    continue
                for part in found.parts:
                    writer.add(f"{archive.INDEX}/{store.name}/{part.name}", part.descriptor, part.bytes)
                shown[store.name] = found.manifest.seq
        except Damaged:  # Found before the first byte was added. It is derived: no reason to be without a backup.
            left_out.append(store.name)
    return shown, tuple(left_out)


def _add_database(writer: Writer, data: Data, workshop: Path, advance: Advance) -> Contents:
    copied = workshop / archive.DATABASE
    done = 0

    def progress(so_far: int, _: int) -> None:
        nonlocal done
        advance(so_far - done)
        done = so_far

    snapshot.copy(data.database, copied, progress)
    try:
        contents = snapshot.check(copied)
    except Damaged as exc:
        raise Damaged(f"{exc.message} No backup was made. {REMEDY}", code=exc.code) from exc
    if contents.is_newer:
        raise Conflict(f"The database has schema {contents.schema}: back it up with the version that has written it.")
    writer.add_path(archive.DATABASE, copied)
    copied.unlink()  # The room may be needed by what is still to be packed.
    return contents
