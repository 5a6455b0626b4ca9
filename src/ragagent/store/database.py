"""The SQLite file: opened in each process for itself, migrated forward, one writer at a time, a snapshot per reader.

A transaction is a `with` block that yields a plain connection; the modules beside this one are functions over it. WAL
with synchronous=FULL: when `write()` has returned, the transaction is on disk. Opened after fork, never before: a child
that uses its parent's connection loses rows without an error.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

import anyio.to_thread

from ragagent import __version__
from ragagent.errors import Conflict, Damaged, RagagentError, StorageFull, Unavailable

REMEDY = "Stop the server, keep a copy of the data directory, and restore the last backup with 'ragagent restore'."

BUSY_SECONDS = 10.0  # how long a write waits for another process's; the indexer keeps its own transactions short

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # 4 MiB a connection; the page cache of the machine is shared, this is not. The file is not mapped: measured on a
    # million chunks, ten rows take 120 us either way, and what is mapped counts as memory of the workers.
    "cache_size = -4096",
    "mmap_size = 0",
)

Transaction = sqlite3.Connection
T = TypeVar("T")


class Database:
    """A pool of connections to one file, usable from any thread of the process that opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards _idle only; nothing is taken after it
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open (and create or migrate) the database. Raises Conflict, Damaged, StorageFull or Unavailable."""
        database = cls(path)
        _create(path)
        with translated():
            with database._connection() as connection:
                migrate(connection)
        return database

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Yield a snapshot: every query in the block sees the same moment."""
        with translated(), self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Yield the write transaction; commit when the block ends well, roll back when it raises."""
        with translated(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")  # Deferred would fail on upgrade, where waiting does not help.
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    async def view(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a snapshot, in a thread."""

        def run() -> T:
            with self.read() as tx:
                return work(tx)

        return await anyio.to_thread.run_sync(run)

    async def update(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in the write transaction, in a thread; like `view`, it ends even if the caller hangs up."""

        def run() -> T:
            with self.write() as tx:
                return work(tx)

        return await anyio.to_thread.run_sync(run)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        assert os.getpid() == self._owner, "a database does not cross a fork"
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


def _create(path: Path) -> None:
    """Make the file before SQLite does: its log takes over its mode, and must not be born readable by others.

    Never opened when it is there already: closing any descriptor of a database drops the locks that this process's
    connections hold on it.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as exc:
        raise Unavailable(f"The database '{path.name}' cannot be opened: {exc.strerror}.") from exc


def newest_schema() -> int:
    """Return the number of the newest schema that this version knows."""
    return len(_scripts())


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema forward, one numbered script at a time, each in its own transaction.

    Raises Conflict for a schema that is newer than this version: what it would read or write there is anybody's guess.
    """
    scripts = _scripts()
    if (found := version(connection)) > len(scripts):
        raise Conflict(
            f"The database has schema {found}, and RAGAgent {__version__} knows schemas up to {len(scripts)}: a newer "
            "version has written it. Run that version, or restore a backup from before it."
        )
    for number, script in enumerate(scripts, start=1):
        # Looked at before the lock is asked for: a process that starts must not wait for a writer to learn this.
        if version(connection) < number:
            _apply(connection, number, script.read_text(encoding="utf-8"))


def _apply(connection: sqlite3.Connection, number: int, script: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version(connection) < number:  # Several processes may open a new file at the same moment.
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _scripts() -> list[Traversable]:
    schema = importlib.resources.files(__package__).joinpath("schema")
    return sorted((entry for entry in schema.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)


def version(connection: sqlite3.Connection) -> int:
    """Return the number of the schema that the database has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction, unless SQLite has done so by itself, as it does after some errors (disk full, I/O)."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    """Yield each statement. `executescript` would commit first, and with it lose the lock that `migrate` holds."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate SQLite's errors into ours. IntegrityError passes: it is the caller's to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as exc:
        raise _translation(exc) from exc


def _translation(exc: sqlite3.DatabaseError) -> RagagentError:
    name = getattr(exc, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable("The database is busy with other writes.", retry_after=1)
    if name.startswith("SQLITE_FULL") or "disk is full" in str(exc):
        return StorageFull("The disk that holds the data directory is full; nothing was written.")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Damaged(
            f"The database file is damaged. {REMEDY}",
            code="database_damaged",  # What else is damaged can be made anew from the database; this cannot.
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
        return Unavailable(f"The database cannot be read or written ({name}).")
    return RagagentError(f"The database refused a statement: {exc}")


def last_seq(tx: Transaction) -> int:
    """Return the newest write number; 0: nothing was ever written."""
    return int(tx.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()[0])


def next_seq(tx: Transaction) -> int:
    """Take the next write number. Call it first in a write: it orders what becomes visible."""
    row = tx.execute("UPDATE counters SET value = value + 1 WHERE name = 'seq' RETURNING value").fetchone()
    return int(row[0])
