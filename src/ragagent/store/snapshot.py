"""A copy of the database as it is at one moment, and whether such a copy is whole.

Copied page by page inside one read transaction, so that whoever writes meanwhile is neither waited for nor seen.
Without that transaction SQLite starts over at every write of another process, and under load never ends (measured: 69
MB beside 250 writes a second: 0.1 s inside it, more than 5 s without). VACUUM INTO took 0.5 s and is no better: it
builds the file anew from the rows, so it would also lose what is damaged instead of showing it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragagent.errors import Damaged, NotFound
from ragagent.store.database import BUSY_SECONDS, newest_schema, translated, version

_PAGES = 1024  # 4 MiB a step: between two of them a person sees how far it is, and Ctrl-C is heard
_WINDOW = 100_000  # chunk ids compared at once
LEAP = 1_000_000_000  # more writes than any server does between two backups
_SPREAD = 1_000 * LEAP
_FINDINGS = 3  # of what is damaged, to be named

Progress = Callable[[int, int], None]  # so many bytes done, of so many


@dataclass(frozen=True, slots=True)
class Contents:
    """What a whole database says of itself. `stores` are the ids of all its stores, deleted ones included."""

    schema: int
    seq: int
    stores: frozenset[str]

    @property
    def is_newer(self) -> bool:
        """Whether only a newer version than this one can read it."""
        return self.schema > newest_schema()


def copy(source: Path, target: Path, progress: Progress) -> None:
    """Copy the database `source` to the new file `target`, durably, as it is now. No writer waits for it.

    Raises NotFound, Damaged where a page cannot be read, StorageFull, Unavailable.
    """
    if not source.is_file():
        raise NotFound(f"There is no database '{source}'.")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with translated(), _connected(source, "mode=rw") as live, _connected(target, "mode=rw") as copied:
        # Nobody looks at the copy before it is whole: it needs no journal, and is made durable once.
        copied.execute("PRAGMA journal_mode = OFF")
        copied.execute("PRAGMA synchronous = OFF")
        size = int(live.execute("PRAGMA page_size").fetchone()[0])
        live.execute("BEGIN")
        live.execute("SELECT count(*) FROM sqlite_master").fetchone()  # The moment: BEGIN alone reads nothing yet.
        live.backup(copied, pages=_PAGES, progress=lambda _, left, total: progress((total - left) * size, total * size))
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(path: Path) -> Contents:
    """Read a copy that nobody writes to, all of it, and return what it says of itself.

    Raises Damaged (`database_damaged`), naming what is wrong first.
    """
    # `immutable`: the header says WAL, and a log must not come to lie beside what is to be packed or moved.
    with translated(), _connected(path, "immutable=1") as connection, _named():
        found = [row[0] for row in connection.execute(f"PRAGMA quick_check({_FINDINGS})")]
        if found != ["ok"]:
            raise _damaged("; ".join(" ".join(str(line).split()) for line in found))
        dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
        if dangling is not None:
            raise _damaged(
                f"row {dangling[1]} of table '{dangling[0]}' belongs to a row of '{dangling[2]}' that is gone"
            )
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"counters", "vector_stores"} <= tables:
            raise _damaged("it is not a database of RAGAgent's")
        (seq,) = connection.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()
        stores = frozenset(row[0] for row in connection.execute("SELECT id FROM vector_stores"))
        return Contents(version(connection), int(seq), stores)


def bury_unknown(path: Path, store_id: str, seq: int, shown: Callable[[int, int], Sequence[int]]) -> int:
    """Leave a tombstone at `seq` for each chunk of an index that a copy does not know; return how many there were.

    `shown(first, last)` returns those chunks of the index whose ids lie between the two, both included. In steps: an
    index may have millions.
    """
    buried = 0
    with translated(), _connected(path, "mode=rw") as connection:
        connection.execute("BEGIN IMMEDIATE")
        (last,) = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'chunks'"
        ).fetchone()
        for first in range(1, last + 1, _WINDOW):
            rows = connection.execute(
                "SELECT id FROM chunks WHERE id BETWEEN ? AND ? AND store_id = ?",
                (first, first + _WINDOW - 1, store_id),
            )
            known = {row[0] for row in rows}
            gone = [
                (chunk_id, store_id, seq) for chunk_id in shown(first, first + _WINDOW - 1) if chunk_id not in known
            ]
            connection.executemany("INSERT OR IGNORE INTO tombstones (chunk_id, store_id, seq) VALUES (?, ?, ?)", gone)
            buried += len(gone)
        connection.execute("COMMIT")
    return buried


def leap(path: Path) -> None:
    """Let the write numbers of a copy go on far behind those that its original may have given out since.

    They stand in the keys of caches that outlive a server: were one given out again, for another write, an answer from
    before would be taken for one of now. How far is drawn by lot: one backup may be restored twice, and the two lives
    that follow must not give out the same numbers either. A database that nobody has written to stays at 0.
    """
    distance = LEAP + secrets.randbelow(_SPREAD)
    with translated(), _connected(path, "mode=rw") as connection:
        connection.execute("UPDATE counters SET value = value + ? WHERE name = 'seq' AND value > 0", (distance,))
        # Redis counts what it has forgotten by this: to the copy that is another count.
        connection.execute("UPDATE counters SET value = ? WHERE name = 'identity'", (secrets.randbits(51),))


def _damaged(finding: str) -> Damaged:
    return Damaged(f"The database is damaged: {finding}.", code="database_damaged")


@contextmanager
def _named() -> Iterator[None]:
    """Say what SQLite stumbled over, where it gets no further than that."""
    try:
        yield
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise _damaged(str(exc)) from exc
        raise


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection
