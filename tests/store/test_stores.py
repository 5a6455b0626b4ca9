"""Rows of vector stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragagent.store import chunks, documents, files, stores
from ragagent.store.database import Database, Transaction, last_seq, migrate
from ragagent.types import Counts, Document, Page, VectorStore
from store.conftest import CALLER, Totals, column, ingested, new_chunks, new_document, new_file, new_store
from store.conftest import totals as totals_of


def erased(tx: Transaction, store: VectorStore, limit: int = 100) -> None:
    stores.mark_deleted(tx, store.id)
    while not stores.erase(tx, store.id, limit):
        pass


def test_a_store_is_found_as_it_was_added(database: Database) -> None:
    with database.write() as tx:
        row = new_store(tx, name="文档", about="tests")
    with database.read() as tx:
        assert stores.find(tx, "default", row.id) == row
        assert stores.find(tx, "default", "文档") == row
        assert row.metadata == {"about": "tests"}


def test_an_id_goes_before_a_name_and_the_oldest_of_a_name_before_the_others(database: Database) -> None:
    with database.write() as tx:
        first, second = new_store(tx, name="same"), new_store(tx, name="same")
        new_store(tx, name=second.id)  # Somebody names a store after another one's id.
        assert stores.find(tx, "default", "same") == first
        assert stores.find(tx, "default", second.id) == second


def test_a_store_is_its_tenants_alone(database: Database) -> None:
    with database.write() as tx:
        row = new_store(tx, tenant="other")
        assert stores.find(tx, "default", row.id) is None
        assert stores.listing(tx, "default", None, Page()) == []


def test_a_listing_can_be_narrowed_to_what_a_key_may_see(database: Database) -> None:
    with database.write() as tx:
        rows = [new_store(tx) for _ in range(3)]
        assert stores.listing(tx, "default", None, Page(order="asc")) == rows
        assert stores.listing(tx, "default", [rows[1].id], Page()) == [rows[1]]
        assert stores.listing(tx, "default", [], Page()) == []


def test_an_update_changes_what_it_names(database: Database) -> None:
    with database.write() as tx:
        row = new_store(tx, name="old", a="1")
        stores.update(tx, row.id, name="new", metadata=None)
        stores.update(tx, row.id, name=None, metadata={"b": "2"})
        found = stores.find(tx, "default", row.id)
        assert found is not None
        assert (found.name, found.metadata) == ("new", {"b": "2"})


def test_a_deleted_store_is_hidden_at_once_and_its_queue_is_gone(database: Database) -> None:
    with database.write() as tx:
        row = new_store(tx)
        new_document(tx, row)
        seq = stores.mark_deleted(tx, row.id)
        assert seq > row.seq
        assert stores.find(tx, "default", row.id) is None
        assert (stores.changed(tx, 0), stores.deleted(tx)) == ([], [row.id])
        assert column(tx, "SELECT count(*) FROM jobs") == [0]


def test_a_deleted_store_is_erased_in_steps(database: Database) -> None:
    with database.write() as tx:
        doomed, other = new_store(tx), new_store(tx)
        for store in (doomed, doomed, doomed, other):
            ingested(tx, store, "text")
        documents.remove(tx, ingested(tx, doomed, "leaves a tombstone"))
        stores.mark_deleted(tx, doomed.id)
        assert [stores.erase(tx, doomed.id, 2), stores.erase(tx, doomed.id, 2)] == [False, True]
        assert [row.id for row in stores.changed(tx, 0)] == [other.id]
        for table in ("documents", "chunks", "tombstones"):
            assert column(tx, f"SELECT DISTINCT store_id FROM {table}") in ([other.id], [])


def test_the_texts_of_an_erased_store_go_with_it_and_attached_files_stay(database: Database) -> None:
    with database.write() as tx:
        doomed, other = new_store(tx), new_store(tx)
        attached, shared, text = new_file(tx), new_file(tx), new_file(tx)
        new_document(tx, doomed, file=attached)
        new_document(tx, doomed, "a", file=text)
        new_document(tx, doomed, "b", file=shared)
        new_document(tx, other, file=shared)
        erased(tx, doomed, limit=2)
        found = [files.find(tx, CALLER, file.id) for file in (attached, shared, text)]
        assert found == [attached, shared, None]


def test_counts_are_by_the_state_that_a_user_sees(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        batch = documents.add_batch(tx, store.id)
        shown = ingested(tx, store, "text", batch_id=batch.id)
        ingested(tx, store, "not shown yet")
        new_document(tx, store)
        chunks.fail(tx, new_document(tx, store, batch_id=batch.id).id, "invalid_file", "No.")
        of_store = stores.counts(tx, store.id, shown.seq)
        assert (of_store.completed, of_store.in_progress, of_store.failed, of_store.total) == (1, 2, 1, 4)
        of_batch = stores.batch_counts(tx, batch.id, shown.seq)
        assert (of_batch.completed, of_batch.in_progress, of_batch.failed) == (1, 0, 1)


def test_a_replaced_version_counts_until_its_successor_is_shown(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "old", external_id="a")
        new = ingested(tx, store, "new", external_id="a")
        before, after = (stores.counts(tx, store.id, seq) for seq in (old.seq, new.seq))
        assert (before.completed, before.in_progress) == (1, 1)
        assert (after.completed, after.in_progress) == (1, 0)


def test_an_empty_store_counts_nothing(database: Database) -> None:
    with database.write() as tx:
        assert stores.counts(tx, new_store(tx).id, 0).total == 0


# Counts and totals are kept, not counted: against the counting, after random writes, for every reader there could be.

EXTERNAL_IDS = st.none() | st.sampled_from(["a", "b"])
WRITES = st.one_of(
    st.tuples(st.just("add"), EXTERNAL_IDS),
    st.tuples(st.sampled_from(["complete", "fail", "remove"]), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("purge"), st.integers(0, 20)),
)
ERASURES = st.lists(st.tuples(st.just("erase"), st.integers(1, 3)), max_size=3)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.row_factory = sqlite3.Row
        opened.execute("PRAGMA foreign_keys = ON")
        migrate(opened)
        yield opened


@given(st.tuples(st.lists(WRITES, max_size=12), ERASURES).map(lambda both: both[0] + both[1]))
@example([("add", "a"), ("complete", 0, 2), ("add", "a"), ("complete", 1, 1), ("purge", 99)])
@example([("add", "a"), ("fail", 0, 0), ("add", "a"), ("add", "a"), ("complete", 2, 1), ("cancel",), ("erase", 1)])
def test_counts_are_what_counting_gives(connection: sqlite3.Connection, writes: list[tuple[Any, ...]]) -> None:
    connection.execute("BEGIN")
    try:
        first, other = new_store(connection), new_store(connection)
        batch = documents.add_batch(connection, first.id)
        ingested(connection, other, "not counted", external_id="a")
        added: list[Document] = []
        start = last_seq(connection)
        for name, *arguments in writes:
            if name == "add":
                added.append(new_document(connection, first, arguments[0], batch_id=batch.id))
            else:
                write(connection, first, batch.id, added, name, arguments)
            for seq in range(start, last_seq(connection) + 1):
                assert stores.counts(connection, first.id, seq) == counted(connection, first, seq)
        assert totals_of(connection, first.id) == totalled(connection, first)
    finally:
        connection.execute("ROLLBACK")


def write(tx: Transaction, store: VectorStore, batch_id: str, added: list[Document], name: str, arguments: Any) -> None:
    match name, arguments:
        case "cancel", _:
            documents.cancel(tx, batch_id)
        case "purge", (up_to,):
            chunks.purge_replaced(tx, store.id, up_to, 2)
        case "erase", (limit,):
            stores.mark_deleted(tx, store.id)
            stores.erase(tx, store.id, limit)
        case _, (which, count) if which < len(added):
            row = added[which]
            if name == "complete":
                chunks.complete(tx, row.id, new_chunks(*["text"] * count))
            elif name == "fail":
                chunks.fail(tx, row.id, "invalid_file", "No.")
            else:
                documents.remove(tx, row)


def counted(tx: Transaction, store: VectorStore, visible_seq: int) -> Counts:
    states = dict.fromkeys(("in_progress", "completed", "failed", "cancelled", "usage_bytes"), 0)
    for row in tx.execute("SELECT * FROM documents WHERE store_id = ?", (store.id,)):
        if row["dead_seq"] is None or row["dead_seq"] > visible_seq:
            is_hidden = row["status"] == "completed" and row["seq"] > visible_seq
            states["in_progress" if is_hidden else row["status"]] += 1
            states["usage_bytes"] += row["usage_bytes"]
    return Counts(**states)


def totalled(tx: Transaction, store: VectorStore) -> Totals:
    row = tx.execute(
        "SELECT count(*), coalesce(sum((SELECT count(*) FROM chunks WHERE document_id = documents.id)), 0),"
        " coalesce(sum(usage_bytes), 0) FROM documents WHERE store_id = ? AND dead_seq IS NULL",
        (store.id,),
    ).fetchone()
    return Totals(*row)


def test_totals_are_of_living_versions_and_none_of_a_store_that_is_gone(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ingested(tx, store, "old", external_id="a")
        ingested(tx, store, "new", "er", external_id="a")
        found = totals_of(tx, store.id)
        assert (found.documents, found.chunks) == (1, 2)
        assert found.usage_bytes == stores.counts(tx, store.id, last_seq(tx)).usage_bytes > 0
        erased(tx, store)
        assert totals_of(tx, store.id) == Totals()
        assert stores.counts(tx, store.id, 0) == Counts()
