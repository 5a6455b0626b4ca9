"""What waits, how fast it goes, and what a store holds."""

from __future__ import annotations

import time

import pytest

from ragagent.store import backlog, chunks, documents, jobs, stores
from ragagent.store.backlog import Load, Rate
from ragagent.store.database import Database
from store.conftest import ingested, new_chunks, new_document, new_store


def test_the_load_follows_every_way_in_and_out(database: Database) -> None:
    with database.write() as tx:
        store, doomed = new_store(tx), new_store(tx)
        rows = [new_document(tx, store, data=b"x" * size) for size in (1, 10, 100, 1000)]
        new_document(tx, doomed, data=b"x" * 10_000)
        assert backlog.load(tx) == Load(5, 11_111)
        chunks.complete(tx, rows[0].id, new_chunks("a"))
        chunks.fail(tx, rows[1].id, "invalid_file", "No.")
        jobs.cancel(tx, rows[2].id)
        assert backlog.load(tx) == Load(2, 11_000)
        stores.mark_deleted(tx, doomed.id)
        assert backlog.load(tx) == Load(1, 1000)
        documents.remove_file(tx, rows[3].file_id)
        assert backlog.load(tx) == Load()
        jobs.again(tx, rows[1].id)
        assert backlog.load(tx) == Load(1, 10)


def test_a_write_that_is_rolled_back_leaves_the_load_as_it_was(database: Database) -> None:
    def add_and_fail() -> None:
        with database.write() as tx:
            new_document(tx, new_store(tx))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        add_and_fail()
    with database.read() as tx:
        assert backlog.load(tx) == Load()


def test_the_rate_is_that_of_the_last_minute(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    with database.write() as tx:
        assert backlog.rate(tx) == Rate()
        backlog.note_drained(tx, 10, 1000)
        backlog.note_drained(tx, 10, 1000)
        now += 10
        assert backlog.rate(tx) == Rate(2.0, 200.0)
        now += backlog.LATELY_SECONDS
        assert backlog.rate(tx) == Rate()
        backlog.note_drained(tx, 6, 0)
        now += 2
        assert backlog.rate(tx).documents == 3.0
        now = 996_470.0  # A clock that was set back.
        backlog.note_drained(tx, 5, 0)
        now += 5
        assert backlog.rate(tx).documents == 1.0


def test_a_store_uses_what_it_holds_and_what_waits_for_it(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        done = ingested(tx, store, "four")
        new_document(tx, store, data=b"x" * 100)
        chunks.fail(tx, new_document(tx, store).id, "invalid_file", "No.")
        jobs.cancel(tx, new_document(tx, store).id)
        new_document(tx, other)
        assert done.usage_bytes == 4 + 16
        assert backlog.usage(tx, store.id) == Load(2, 120)


def test_what_a_queued_version_will_replace_is_superseded(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "four", external_id="a")
        ingested(tx, store, "other", external_id="b")
        assert backlog.superseded(tx, store.id) == Load()
        new_document(tx, store, "a", data=b"x" * 100)
        newest = new_document(tx, store, "a", data=b"x" * 10)
        assert backlog.usage(tx, store.id).documents == 4
        assert backlog.superseded(tx, store.id) == Load(2, 120)
        assert [backlog.weight(tx, row.id) for row in (old, newest)] == [20, 10]


def test_stages_are_counted(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        for _ in range(3):
            new_document(tx, store)
        jobs.take(tx, jobs.Holder(1, 1), 1, 100)
        assert backlog.stages(tx) == {"queued": 2, "parsing": 1}
