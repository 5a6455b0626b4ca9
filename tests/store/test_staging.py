"""Large documents on their way: what is staged is whole when it is needed, and nobody's before."""

from __future__ import annotations

import time

import numpy as np

from ragagent.store import chunks, documents, jobs, staging
from ragagent.store.database import Database, Transaction
from ragagent.store.jobs import Holder, JobRow
from ragagent.types import Document
from store.conftest import column, new_document, new_store

HOLDER = Holder(7, 1000)
PIECES = [(0, 0, 3, "one"), (1, 4, 7, "two"), (2, 8, 13, "three")]


def staged(tx: Transaction) -> tuple[Document, JobRow]:
    row = new_document(tx, new_store(tx))
    (job,) = jobs.take(tx, HOLDER, 1, 100)
    assert staging.put_pieces(tx, job, PIECES[:2])
    assert staging.put_pieces(tx, job, PIECES[2:])
    staging.finish_pieces(tx, job, 3)
    jobs.give_back(tx, [row.id])
    return row, job


def vectors(*first: float) -> np.ndarray:
    return np.array([[value, 0, 0, 0] for value in first], np.float32)


def test_a_staged_document_has_turns_of_its_own_from_where_it_was(database: Database) -> None:
    with database.write() as tx:
        row, job = staged(tx)
        assert jobs.take(tx, HOLDER, 9, 100) == []
        assert not jobs.any_due(tx)
        assert jobs.any_staged_due(tx)
        turn = jobs.take_staged(tx, HOLDER)
        assert turn is not None
        assert (turn.document_id, turn.chunks_done, turn.chunks_total, turn.staged_for) == (row.id, 0, 3, "model-a/4")
        assert staging.texts(tx, row.id, 0, 2) == ["one", "two"]
        assert staging.put_vectors(tx, job, 0, vectors(1, 2))
        jobs.give_back(tx, [row.id])
        again = jobs.take_staged(tx, HOLDER)
        assert again is not None
        assert (again.chunks_done, again.attempts) == (2, 1)
        assert staging.texts(tx, row.id, 2, 9) == ["three"]


def test_nobody_sees_it_until_all_of_it_moves_at_once(database: Database) -> None:
    with database.write() as tx:
        row, job = staged(tx)
        staging.put_vectors(tx, job, 0, vectors(1, 2))
        staging.put_vectors(tx, job, 2, vectors(3))
        assert column(tx, "SELECT count(*) FROM chunks") == [0]
        assert jobs.watermark(tx, row.store_id) == row.seq - 1
        assert chunks.complete(tx, row.id, staging.chunks(tx, row.id))
        born = chunks.born(tx, row.store_id, 0, 0, row.seq, beyond=(0, 0), limit=9)
        assert [(chunk.text, chunk.vector[0]) for chunk in born] == [("one", 1), ("two", 2), ("three", 3)]
        assert chunks.of_document(tx, row.id) == [(start, end, text) for _, start, end, text in PIECES]
        for table in ("jobs", "staged_chunks", "staged_vectors"):
            assert column(tx, f"SELECT count(*) FROM {table}") == [0]


def test_progress_sets_the_count_of_attempts_back(database: Database) -> None:
    with database.write() as tx:
        _, job = staged(tx)
        attempts = [turn.attempts for _ in range(3) if (turn := jobs.take_staged(tx, HOLDER))]
        assert attempts == [1, 2, 3]
        staging.put_vectors(tx, job, 0, vectors(1))
        assert column(tx, "SELECT attempts FROM jobs") == [1]


def test_what_is_cancelled_or_deleted_takes_nothing_more_and_leaves_nothing(database: Database) -> None:
    with database.write() as tx:
        for end in (lambda row: jobs.cancel(tx, row.id), lambda row: documents.remove(tx, row)):
            row, job = staged(tx)
            staging.put_vectors(tx, job, 0, vectors(1))
            end(row)
            assert not staging.put_pieces(tx, job, PIECES)
            assert not staging.put_vectors(tx, job, 1, vectors(1))
            for table in ("jobs", "staged_chunks", "staged_vectors"):
                assert column(tx, f"SELECT count(*) FROM {table}") == [0]


def test_a_document_that_begins_anew_forgets_what_was_staged(database: Database) -> None:
    with database.write() as tx:
        row, job = staged(tx)
        staging.put_vectors(tx, job, 0, vectors(1))
        staging.begin(tx, row.id)
        (job,) = jobs.take(tx, HOLDER, 9, 100)
        assert (job.chunks_done, job.staged_for) == (0, None)
        assert column(tx, "SELECT count(*) FROM staged_chunks") == column(tx, "SELECT count(*) FROM staged_vectors")
        assert column(tx, "SELECT count(*) FROM staged_chunks") == [0]


def test_one_that_waits_for_its_next_attempt_has_no_turn(database: Database) -> None:
    with database.write() as tx:
        staged(tx)
        tx.execute("UPDATE jobs SET due_at = ?", (time.time() + 60,))
        assert jobs.take_staged(tx, HOLDER) is None
        assert not jobs.any_staged_due(tx)


def test_a_job_that_was_queued_again_takes_nothing_of_the_one_before(database: Database) -> None:
    with database.write() as tx:
        row, job = staged(tx)
        jobs.cancel(tx, row.id)
        jobs.again(tx, row.id)
        assert not jobs.exists(tx, job)
        assert not staging.put_pieces(tx, job, PIECES)
        assert not staging.put_vectors(tx, job, 0, vectors(1))
        staging.finish_pieces(tx, job, 3)
        (again,) = jobs.take(tx, HOLDER, 9, 100)
        assert (again.document_id, again.chunks_total, again.seq > job.seq) == (row.id, 0, True)


def test_a_late_word_of_the_holder_sets_no_progress_back(database: Database) -> None:
    with database.write() as tx:
        row, _ = staged(tx)
        job = jobs.take_staged(tx, HOLDER)
        assert job is not None
        staging.put_vectors(tx, job, 0, vectors(1, 2))
        jobs.beat(tx, [jobs.Work(row.id, "embedding", 0)])
        assert column(tx, "SELECT chunks_done FROM jobs") == [2]
        assert column(tx, "SELECT chunks_total FROM jobs") == [3]
