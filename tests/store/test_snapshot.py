"""A copy of the database: one moment, however much is written meanwhile, and what is wrong with it is found."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ragagent.errors import Damaged, NotFound
from ragagent.store import chunks, snapshot, stores
from ragagent.store.database import Database, last_seq, next_seq
from store.conftest import column, ingested, new_store


def ignore(done: int, total: int) -> None:
    pass


def filled(database: Database) -> str:
    with database.write() as tx:
        store = new_store(tx)
        for n in range(40):
            ingested(tx, store, "x" * 2000, external_id=f"d{n}")
    return store.id


def test_a_copy_holds_what_was_committed_and_is_whole(database: Database, tmp_path: Path) -> None:
    store_id = filled(database)
    snapshot.copy(database.path, tmp_path / "copy.db", ignore)
    found = snapshot.check(tmp_path / "copy.db")
    assert (found.seq, found.stores, found.is_newer) == (41, frozenset({store_id}), False)
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.glob("copy.db*")} == {"copy.db"}, "no log lies beside it"


def test_a_copy_is_of_one_moment_while_others_write(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(database)
    monkeypatch.setattr(snapshot, "_PAGES", 1)
    seen: list[int] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with database.write() as tx:  # Always both, or neither.
                seq = next_seq(tx)
                tx.execute("UPDATE vector_stores SET seq = ?, name = ?", (seq, "y" * (seq % 5000)))

    def progress(done: int, total: int) -> None:
        seen.append(done)
        assert done <= total

    writer = threading.Thread(target=write)
    writer.start()
    try:
        snapshot.copy(database.path, tmp_path / "copy.db", progress)
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert len(seen) > 20, "it never started over"
    seq = snapshot.check(tmp_path / "copy.db").seq
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copied:
        assert copied.execute("SELECT seq FROM vector_stores").fetchall() == [(seq,)]
    with database.read() as tx:
        assert seq < last_seq(tx), "the writer went on"


def test_a_copy_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no database"):
        snapshot.copy(tmp_path / "no.db", tmp_path / "copy.db", ignore)
    assert not list(tmp_path.iterdir())


def test_a_damaged_page_is_copied_and_found(tmp_path: Path) -> None:
    with closing(Database.open(tmp_path / "x.db")) as opened:
        filled(opened)
    data = bytearray((tmp_path / "x.db").read_bytes())
    at = data.index(b"x" * 1000) // 4096 * 4096  # A page of texts: everything else still reads well.
    data[at : at + 4096] = b"\xa5" * 4096
    (tmp_path / "x.db").write_bytes(data)
    snapshot.copy(tmp_path / "x.db", tmp_path / "copy.db", ignore)
    with pytest.raises(Damaged, match="The database is damaged: ") as caught:
        snapshot.check(tmp_path / "copy.db")
    assert caught.value.code == "database_damaged"


def test_a_row_without_its_owner_is_found(database: Database, tmp_path: Path) -> None:
    filled(database)
    database.close()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:  # Foreign keys are off here.
        connection.execute("DELETE FROM documents WHERE id = 7")
    snapshot.copy(database.path, tmp_path / "copy.db", ignore)
    with pytest.raises(Damaged, match="row 7 of table 'chunks' belongs to a row of 'documents' that is gone"):
        snapshot.check(tmp_path / "copy.db")


@pytest.mark.parametrize("is_sqlite", [True, False])
def test_what_is_no_database_of_ours_is_damaged(tmp_path: Path, is_sqlite: bool) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    if is_sqlite:
        (tmp_path / "x.db").unlink()
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            connection.execute("CREATE TABLE documents (mine)")
    with pytest.raises(Damaged):
        snapshot.check(tmp_path / "x.db")


def test_what_an_index_shows_and_the_database_does_not_know_is_buried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = filled(database)
    monkeypatch.setattr(snapshot, "_WINDOW", 7)
    with database.write() as tx:
        other = ingested(tx, new_store(tx, "other"), "of another store")
        gone = chunks.of_document(tx, 12)
        tx.execute("DELETE FROM documents WHERE id = 12")
        (foreign,) = column(tx, "SELECT id FROM chunks WHERE document_id = ?", (other.id,))
    assert gone
    shown = [*range(1, 41), foreign]
    database.close()
    found = snapshot.bury_unknown(
        database.path, store_id, 30, lambda first, last: [n for n in shown if first <= n <= last]
    )
    assert found == 2
    with closing(Database.open(database.path)) as opened, opened.read() as tx:
        assert chunks.buried(tx, store_id, 30) == [12, foreign]
        assert chunks.buried(tx, store_id, 29) == []
        assert len(stores.living(tx)) == 2


def test_write_numbers_leap_where_there_were_any(database: Database, tmp_path: Path) -> None:
    database.close()
    snapshot.leap(database.path)
    assert snapshot.check(database.path).seq == 0
    with closing(Database.open(database.path)) as opened, opened.write() as tx:
        next_seq(tx)
    snapshot.leap(database.path)
    assert snapshot.check(database.path).seq > snapshot.LEAP
