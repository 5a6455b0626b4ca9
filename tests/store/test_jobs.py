"""The queue: the order it is taken in, what an attempt costs, and how far a store has come."""

from __future__ import annotations

import time

from ragagent.errors import Invalid
from ragagent.store import chunks, documents, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.jobs import Holder, JobRow, Work
from store.conftest import new_chunks, new_document, new_store

MUCH = 1_000_000
HOLDER = Holder(7, 1000)


def taken(tx: Transaction, limit: int = 10, max_bytes: int = MUCH) -> list[int]:
    return [job.document_id for job in jobs.take(tx, HOLDER, limit, max_bytes)]


def attempts(tx: Transaction) -> list[int]:
    return [row[0] for row in tx.execute("SELECT attempts FROM jobs ORDER BY seq")]


def test_jobs_are_taken_oldest_first_whatever_their_store(database: Database) -> None:
    with database.write() as tx:
        one, two = new_store(tx), new_store(tx)
        rows = [new_document(tx, store) for store in (one, two, one)]
        assert taken(tx, limit=2) == [row.id for row in rows[:2]]


def test_a_job_says_all_that_its_ingest_needs(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        attached, text = new_document(tx, store, data=b"12345"), new_document(tx, store, "a")
        first, second = jobs.take(tx, HOLDER, 2, MUCH)
        assert first == JobRow(
            document_id=attached.id,
            seq=attached.seq,
            store_id=store.id,
            file_id=attached.file_id,
            filename="a.txt",
            is_text=False,
            bytes=5,
            model="model-a",
            dimension=4,
            chunk_tokens=400,
            overlap_tokens=0,
            attempts=1,
            traceparent=None,
            chunks_done=0,
            chunks_total=0,
            staged_for=None,
        )
        assert (second.document_id, second.is_text) == (text.id, True)


def test_an_attempt_is_counted_when_it_begins_and_can_be_given_back(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        new_document(tx, store)
        new_document(tx, store)
        rows = jobs.take(tx, HOLDER, 2, MUCH)
        assert attempts(tx) == [1, 1]
        jobs.give_back(tx, [rows[1].document_id])
        assert attempts(tx) == [1, 0]


def test_what_was_taken_before_is_taken_alone(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        first, second = new_document(tx, store), new_document(tx, store)
        assert taken(tx) == [first.id, second.id]
        third = new_document(tx, store)
        # The indexer died: whichever of the two it was, it does not take the others down with it.
        assert taken(tx) == [first.id]
        chunks.fail(tx, first.id, "server_error", "No.")
        assert taken(tx) == [second.id]
        chunks.fail(tx, second.id, "server_error", "No.")
        assert taken(tx) == [third.id]


def test_what_was_taken_before_ends_a_batch_of_new_ones(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        first, second, third = (new_document(tx, store) for _ in range(3))
        tx.execute("UPDATE jobs SET attempts = 1 WHERE document_id = ?", (second.id,))
        assert taken(tx) == [first.id]
        chunks.fail(tx, first.id, "server_error", "No.")
        assert taken(tx) == [second.id]
        assert third.id not in taken(tx)


def test_a_batch_is_bounded_in_bytes_and_takes_one_however_large(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        rows = [new_document(tx, store, data=b"x" * size) for size in (100, 3, 4, 3)]
        assert taken(tx, max_bytes=10) == [rows[0].id]
        chunks.fail(tx, rows[0].id, "server_error", "No.")
        assert taken(tx, max_bytes=7) == [rows[1].id, rows[2].id]


def test_the_watermark_stands_before_the_oldest_job(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        assert jobs.watermark(tx, store.id) == store.seq
        first, second = new_document(tx, store), new_document(tx, store)
        new_document(tx, other)
        assert jobs.watermark(tx, store.id) == first.seq - 1
        chunks.complete(tx, second.id, new_chunks("b"))
        assert jobs.watermark(tx, store.id) == first.seq - 1
        chunks.complete(tx, first.id, new_chunks("a"))
        assert jobs.watermark(tx, store.id) == second.seq


def test_the_watermark_passes_what_failed_was_cancelled_or_deleted(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        batch = documents.add_batch(tx, store.id)
        failed, cancelled, deleted = (
            new_document(tx, store),
            new_document(tx, store, batch_id=batch.id),
            new_document(tx, store),
        )
        chunks.fail(tx, failed.id, "invalid_file", "No.")
        assert documents.cancel(tx, batch.id) == 1
        assert jobs.watermark(tx, store.id) == cancelled.seq
        seq = documents.remove(tx, deleted)
        assert jobs.watermark(tx, store.id) == seq


def test_the_watermark_follows_writes_that_need_no_ingest(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store)
        chunks.complete(tx, row.id, new_chunks("a"))
        seq = documents.set_attributes(tx, row, {"a": 1})
        assert jobs.watermark(tx, store.id) == seq > row.seq


def test_the_watermark_of_no_store_is_zero(database: Database) -> None:
    with database.read() as tx:
        assert jobs.watermark(tx, "vs_nowhere") == 0


def test_depth_and_age_are_of_what_waits(database: Database) -> None:
    with database.write() as tx:
        assert (jobs.depth(tx), jobs.oldest_age(tx)) == (0, 0.0)
        store = new_store(tx)
        new_document(tx, store)
        tx.execute("UPDATE jobs SET created_at = ?", (int(time.time()) - 100,))
        new_document(tx, store)
        assert jobs.depth(tx) == 2
        assert 99 < jobs.oldest_age(tx) < 130
        tx.execute("UPDATE jobs SET created_at = created_at + 1000")  # A clock that was set back.
        assert jobs.oldest_age(tx) == 0.0
        stores.mark_deleted(tx, store.id)
        assert jobs.depth(tx) == 0


def test_an_attempt_that_failed_by_itself_stays_counted_and_lets_others_go_first(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        first, second = new_document(tx, store), new_document(tx, store)
        jobs.take(tx, HOLDER, 1, MUCH)
        jobs.postpone(tx, first.id, Invalid("Broken.", code="server_error"), 60)
        assert [tuple(row) for row in tx.execute("SELECT attempts, error_message, holder_pid FROM jobs LIMIT 1")] == [
            (1, "Broken.", None)
        ]
        assert taken(tx) == [second.id]
        jobs.give_back(tx, [second.id])
        jobs.hurry(tx, first.id)
        assert taken(tx) == [first.id, second.id]


def test_whoever_has_the_lock_takes_back_what_others_left(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store)
        jobs.take(tx, HOLDER, 1, MUCH)
        assert jobs.reclaim(tx, HOLDER) == 0
        # The same pid, and another process.
        assert jobs.reclaim(tx, Holder(HOLDER.pid, HOLDER.start + 1)) == 1
        found = tx.execute("SELECT stage, attempts, error_message, holder_pid, beat_at FROM jobs").fetchone()
        assert tuple(found) == ("queued", 1, "The indexer (pid 7) ended before this document was done.", None, None)
        assert taken(tx) == [row.id]


def test_a_beat_says_how_far_a_job_is_and_since_when(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row, other = new_document(tx, store), new_document(tx, store)
        jobs.take(tx, HOLDER, 1, MUCH)
        tx.execute("UPDATE jobs SET stage_at = 5, beat_at = 5")
        jobs.beat(tx, [Work(row.id, "parsing"), Work(other.id, "parsing")])
        stage_at, beat_at = tx.execute("SELECT stage_at, beat_at FROM jobs WHERE document_id = ?", (row.id,)).fetchone()
        assert stage_at == 5
        assert beat_at > 5
        jobs.beat(tx, [Work(row.id, "embedding", 9)])
        found = tx.execute("SELECT stage, chunks_total, stage_at > 5 FROM jobs WHERE document_id = ?", (row.id,))
        assert tuple(found.fetchone()) == ("embedding", 9, 1)
        # Nobody holds the other one: a late word about it changes nothing.
        assert tx.execute("SELECT stage FROM jobs WHERE document_id = ?", (other.id,)).fetchone()[0] == "queued"


def test_a_document_that_is_tried_again_has_a_new_seq_and_is_published(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        failed = new_document(tx, store)
        chunks.fail(tx, failed.id, "invalid_file", "No.")
        later = new_document(tx, store)
        chunks.complete(tx, later.id, new_chunks("later"))
        jobs.again(tx, failed.id)
        assert jobs.watermark(tx, store.id) == later.seq
        found = documents.find(tx, store.id, failed.file_id)
        assert found is not None
        assert (found.status, found.error_code, found.seq) == ("in_progress", None, later.seq + 1)
        assert taken(tx) == [failed.id]
        chunks.complete(tx, failed.id, new_chunks("mended"))
        (chunk,) = chunks.born(tx, store.id, 0, later.seq, found.seq, beyond=(0, 0), limit=9)
        assert (chunk.text, jobs.watermark(tx, store.id)) == ("mended", found.seq)


def test_a_cancelled_document_is_given_up_and_a_completed_one_is_not(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row, done = new_document(tx, store), new_document(tx, store)
        chunks.complete(tx, done.id, new_chunks("x"))
        for document in (row, done):
            jobs.cancel(tx, document.id)
        states = dict(tx.execute("SELECT id, status FROM documents").fetchall())
        assert states == {row.id: "cancelled", done.id: "completed"}
        assert jobs.depth(tx) == 0
        assert not chunks.complete(tx, row.id, new_chunks("late"))
