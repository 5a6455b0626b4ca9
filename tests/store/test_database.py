"""The SQLite file: who may open it, what a transaction is, and what its errors become."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from ragagent.errors import Damaged, RagagentError, StorageFull, Unavailable
from ragagent.store import database as module
from ragagent.store.database import Database, Transaction, migrate, next_seq
from store.conftest import column, new_store

Begin = Callable[[Database], AbstractContextManager[Transaction]]
SCRIPTS = Path(module.__file__).with_name("schema")
OPEN = "import sys; from pathlib import Path; from ragagent.store.database import Database as D; "


def seq(opened: Database) -> int:
    with opened.read() as tx:
        return int(column(tx, "SELECT value FROM counters WHERE name = 'seq'")[0])


def take(opened: Database) -> int:
    with opened.write() as tx:
        return next_seq(tx)


def opener(path: Path, code: str = "D.open(Path(sys.argv[1])).close()") -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OPEN + code, str(path)], stderr=subprocess.PIPE, text=True)


# Opening


def test_a_new_file_gets_the_newest_schema_once(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(Database.open(tmp_path / "x.db")) as opened, opened.read() as tx:
            assert column(tx, "PRAGMA user_version") == [len(list(SCRIPTS.glob("*.sql")))]
            assert column(tx, "SELECT value FROM counters WHERE name = 'seq'") == [0]


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    children = [opener(tmp_path / "x.db") for _ in range(5)]
    assert [(child.communicate(timeout=30)[1], child.returncode) for child in children] == [("", 0)] * 5
    with closing(Database.open(tmp_path / "x.db")) as opened:
        assert seq(opened) == 0


def test_nobody_else_may_read_the_file_or_its_log(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        with closing(Database.open(tmp_path / "x.db")) as opened:
            take(opened)
            modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    # The write-ahead log holds rows as much as the database does.
    assert modes == {"x.db": "0o600", "x.db-wal": "0o600", "x.db-shm": "0o600"}


def test_opening_an_up_to_date_file_waits_for_no_writer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    with database.write():
        Database.open(database.path).close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE documents (mine)")
        with pytest.raises(sqlite3.OperationalError, match="documents already exists"):
            migrate(connection)
        assert column(connection, "SELECT name FROM sqlite_master") == ["documents"]
        assert column(connection, "PRAGMA user_version") == [0]


def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Database.open(tmp_path / "nowhere" / "x.db")


# Durability


def test_what_is_committed_is_synced_to_disk(database: Database) -> None:
    with database.read() as tx:
        assert column(tx, "PRAGMA journal_mode") == ["wal"]
        assert column(tx, "PRAGMA synchronous") == [2]  # FULL
        assert column(tx, "PRAGMA foreign_keys") == [1]


def test_every_connection_of_the_pool_is_durable(database: Database) -> None:
    with database.read() as first, database.read() as second, database.read() as third:
        assert len({id(tx) for tx in (first, second, third)}) == 3
        assert [column(tx, "PRAGMA synchronous") for tx in (first, second, third)] == [[2]] * 3


def test_a_killed_process_loses_nothing_that_it_committed(tmp_path: Path) -> None:
    code = (
        "from ragagent.store.database import next_seq; import os\n"
        "d = D.open(Path(sys.argv[1]))\n"
        "for _ in range(3):\n"
        "    with d.write() as tx: next_seq(tx)\n"
        "with d.write() as tx:\n"
        "    next_seq(tx)\n"
        "    os._exit(9)\n"
    )
    child = opener(tmp_path / "x.db", code)
    assert (child.communicate(timeout=30)[1], child.returncode) == ("", 9)
    with closing(Database.open(tmp_path / "x.db")) as opened:
        assert seq(opened) == 3


# Transactions


def test_a_block_that_raises_leaves_no_trace(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as tx:
        raise KeyError(next_seq(tx))
    assert seq(database) == 0
    assert take(database) == 1


@pytest.mark.parametrize("begin", [Database.read, Database.write])
def test_a_transaction_that_sqlite_has_ended_keeps_its_first_error(database: Database, begin: Begin) -> None:
    # After a full disk or an I/O error SQLite may have rolled back by itself.
    with pytest.raises(KeyError), begin(database) as tx:
        raise KeyError(tx.execute("ROLLBACK"))
    assert take(database) == 1


def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    with database.read() as tx:
        before = column(tx, "SELECT value FROM counters WHERE name = 'seq'")
        take(database)
        assert column(tx, "SELECT value FROM counters WHERE name = 'seq'") == before == [0]
    assert seq(database) == 1


def test_a_reader_cannot_leave_a_change_behind(database: Database) -> None:
    with database.read() as tx:
        next_seq(tx)
    assert seq(database) == 0


def test_writers_of_many_threads_take_turns(database: Database) -> None:
    taken: list[int] = []

    def work() -> None:
        for _ in range(10):
            taken.append(take(database))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 41))


@pytest.mark.anyio
async def test_view_and_update_return_what_their_work_returns(database: Database) -> None:
    assert await database.update(next_seq) == 1
    assert await database.view(lambda tx: column(tx, "SELECT value FROM counters WHERE name = 'seq'")) == [1]


def test_connections_are_used_again(database: Database) -> None:
    with database.read() as tx:
        first = id(tx)
    with database.write() as tx:
        assert id(tx) == first


def test_a_closed_database_closes_what_comes_back(database: Database) -> None:
    with database.read() as tx:
        database.close()
        assert column(tx, "SELECT 1") == [1]
    with pytest.raises(sqlite3.ProgrammingError):
        tx.execute("SELECT 1")


def test_it_does_not_cross_a_fork(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(AssertionError, match="does not cross a fork"), database.read():
        pass


# Errors


def test_a_writer_that_waits_too_long_is_told_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    with closing(Database.open(tmp_path / "x.db")) as opened, opened.write():
        with pytest.raises(Unavailable, match="busy") as caught, opened.write():
            pass
        assert caught.value.retry_after


def test_a_writer_waits_for_another_that_is_quick(database: Database) -> None:
    held = threading.Event()

    def hold() -> None:
        with database.write():
            held.set()
            time.sleep(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    assert take(database) == 1
    thread.join()


def fill(opened: Database) -> None:
    """Write until the limit of pages is reached."""
    with opened.write() as tx:
        tx.execute(f"PRAGMA max_page_count = {column(tx, 'PRAGMA page_count')[0] + 2}")
        for n in range(100):
            new_store(tx, name="x" * 4000, note=str(n))


def test_a_full_disk_refuses_the_write_and_goes_on_reading(database: Database) -> None:
    take(database)
    with pytest.raises(StorageFull):
        fill(database)
    assert seq(database) == 1
    with database.read() as tx:
        assert column(tx, "SELECT count(*) FROM vector_stores") == [0]


def test_a_full_disk_is_named_also_when_it_stops_a_migration(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StorageFull), module.translated():
            migrate(connection)


@pytest.mark.parametrize(
    "junk", [b"not a database, but long enough to look at " * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_damaged(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "x.db").write_bytes(junk)
    with pytest.raises(Damaged, match="restore the last backup") as caught:
        Database.open(tmp_path / "x.db")
    assert caught.value.code == "database_damaged"


def test_a_corrupt_page_is_damaged(tmp_path: Path) -> None:
    with closing(Database.open(tmp_path / "x.db")) as opened, opened.write() as tx:
        for n in range(500):
            new_store(tx, name=f"{n}" * 500)
    data = bytearray((tmp_path / "x.db").read_bytes())
    half = len(data) // 2  # The schema stands before it.
    data[half:] = b"\xa5" * (len(data) - half)
    (tmp_path / "x.db").write_bytes(data)
    with closing(Database.open(tmp_path / "x.db")) as opened, pytest.raises(Damaged), opened.read() as tx:
        tx.execute("SELECT * FROM vector_stores ORDER BY name").fetchall()


def test_a_statement_that_is_wrong_is_our_mistake_and_not_the_users(database: Database) -> None:
    with pytest.raises(RagagentError) as caught, database.read() as tx:
        tx.execute("SELECT nothing FROM nowhere")
    assert type(caught.value) is RagagentError


def test_a_broken_constraint_is_the_callers_to_explain(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError), database.write() as tx:
        tx.execute("INSERT INTO counters VALUES ('seq', 1)")
