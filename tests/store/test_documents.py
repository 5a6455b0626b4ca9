"""Rows of documents: their states, their versions, and what a removal leaves."""

from __future__ import annotations

import sqlite3

import pytest

from ragagent.store import chunks, documents, files, jobs, stores
from ragagent.store.database import Database
from ragagent.types import Page
from store.conftest import CALLER, column, ingested, new_chunks, new_document, new_file, new_store


def test_a_document_and_its_job_are_one_write(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store, "a", attributes={"n": 1, "s": "中", "b": True, "f": 0.5})
        assert documents.find(tx, store.id, row.file_id) == row
        assert (row.status, row.visible_status(row.seq), row.external_id) == ("in_progress", "in_progress", "a")
        assert row.attributes == {"n": 1, "s": "中", "b": True, "f": 0.5}
        assert column(tx, "SELECT document_id FROM jobs WHERE seq = ?", [row.seq]) == [row.id]
        assert [found.seq for found in stores.changed(tx, 0)] == [row.seq]


def test_a_file_stands_in_a_store_once(database: Database) -> None:
    with database.write() as tx:
        store, file = new_store(tx), new_file(tx)
        new_document(tx, store, file=file)
        with pytest.raises(sqlite3.IntegrityError):
            new_document(tx, store, file=file)


def test_a_completed_document_is_completed_for_users_once_it_is_shown(database: Database) -> None:
    with database.write() as tx:
        row = ingested(tx, new_store(tx), "text")
        assert [row.visible_status(seq) for seq in (row.seq - 1, row.seq)] == ["in_progress", "completed"]


def test_versions_are_newest_first_and_a_replaced_one_is_apart(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "old", external_id="a")
        new = ingested(tx, store, "new", external_id="a")
        queued = new_document(tx, store, "a")
        new_document(tx, store, "b")
        assert [row.id for row in documents.versions(tx, store.id, "a")] == [queued.id, new.id]
        assert [row.id for row in documents.replaced(tx, store.id, "a")] == [old.id]


def test_a_listing_shows_the_states_and_the_versions_that_a_user_sees(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "old", external_id="a")
        new = ingested(tx, store, "new", external_id="a")
        failed = new_document(tx, store)
        chunks.fail(tx, failed.id, "invalid_file", "No.")

        def listed(seq: int, status: str | None = None) -> list[int]:
            page = Page(order="asc")
            return [row.id for row in documents.listing(tx, store.id, seq, page, batch_id=None, status=status)]

        assert listed(old.seq) == [old.id, new.id, failed.id]
        assert listed(new.seq) == [new.id, failed.id]
        assert listed(old.seq, "in_progress") == [new.id]
        assert listed(new.seq, "completed") == [new.id]
        assert listed(new.seq, "failed") == [failed.id]


def test_a_listing_can_be_narrowed_to_a_batch_and_paged_by_file(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        batch = documents.add_batch(tx, store.id)
        rows = [new_document(tx, store, batch_id=batch.id) for _ in range(3)]
        new_document(tx, store)
        page = Page(limit=1, after=rows[0].file_id, order="asc")
        found = documents.listing(tx, store.id, 0, page, batch_id=batch.id, status="in_progress")
        assert [row.id for row in found] == [rows[1].id]


def test_attributes_are_replaced_whole_and_are_a_write(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store, attributes={"a": 1})
        seq = documents.set_attributes(tx, row, {"b": "2"})
        found = documents.find(tx, store.id, row.file_id)
        assert found is not None
        assert (found.attributes, found.seq) == ({"b": "2"}, row.seq)
        assert [store.seq for store in stores.changed(tx, 0)] == [seq] == [row.seq + 1]


def test_a_removed_document_leaves_tombstones_for_its_chunks_alone(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        doomed, other = ingested(tx, store, "a", "b"), ingested(tx, store, "c")
        ids = column(tx, "SELECT id FROM chunks WHERE document_id = ?", [doomed.id])
        seq = documents.remove(tx, doomed)
        assert documents.find(tx, store.id, doomed.file_id) is None
        assert [tuple(row) for row in tx.execute("SELECT chunk_id, store_id, seq FROM tombstones")] == [
            (chunk_id, store.id, seq) for chunk_id in ids
        ]
        assert column(tx, "SELECT document_id FROM chunks") == [other.id]
        assert files.find(tx, CALLER, doomed.file_id) is not None


def test_removing_a_queued_document_takes_its_job_along(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        documents.remove(tx, new_document(tx, store))
        assert jobs.depth(tx) == 0


def test_cancelling_a_batch_stops_what_has_not_been_ingested(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        batch = documents.add_batch(tx, store.id)
        done = ingested(tx, store, "text", batch_id=batch.id)
        waiting, other = new_document(tx, store, batch_id=batch.id), new_document(tx, store)
        assert documents.cancel(tx, batch.id) == 1
        states = {row.id: row.status for row in documents.listing(tx, store.id, 99, Page(), batch_id=None, status=None)}
        assert states == {done.id: "completed", waiting.id: "cancelled", other.id: "in_progress"}
        assert column(tx, "SELECT document_id FROM jobs") == [other.id]
        # The indexer may have been at work on it.
        assert not chunks.complete(tx, waiting.id, new_chunks("late"))
        found = documents.find_batch(tx, store.id, batch.id)
        assert found is not None
        assert found.cancelled_at is not None


def test_a_batch_is_its_stores_alone(database: Database) -> None:
    with database.write() as tx:
        batch = documents.add_batch(tx, new_store(tx).id)
        assert documents.find_batch(tx, batch.store_id, batch.id) == batch
        assert documents.find_batch(tx, new_store(tx).id, batch.id) is None
