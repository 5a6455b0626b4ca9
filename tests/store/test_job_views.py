"""Jobs as a user sees them: every state, one's own alone, page by page."""

from __future__ import annotations

from typing import Any

from ragagent.store import chunks, job_views, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, Job
from store.conftest import CALLER, ingested, new_chunks, new_document, new_store


def listed(tx: Transaction, caller: Caller = CALLER, **asked: Any) -> list[Job]:
    defaults: dict[str, Any] = {"shown": {}, "store_id": None, "status": None, "after": None, "limit": 99}
    return job_views.listing(tx, caller, **{**defaults, **asked})


def test_a_job_is_its_documents_for_good(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store, "a", data=b"12345")
        job = job_views.find(tx, CALLER, row.id)
        assert job is not None
        assert (job.status, job.filename, job.external_id, job.bytes, job.attempts) == ("queued", "a.txt", "a", 5, 0)
        assert (job.holder_pid, job.beat_at, job.percent) == (None, None, 0.0)
        chunks.complete(tx, row.id, new_chunks("x", "y"))
        done = job_views.find(tx, CALLER, row.id)
        assert done is not None
        assert (done.status, done.chunks_done, done.chunks_total, done.percent) == ("completed", 2, 2, 100.0)
        assert job_views.visible(done, {store.id: row.seq - 1}).status == "publishing"
        assert job_views.visible(done, {store.id: row.seq}) == job_views.visible(done, {}) == done


def test_a_failed_job_keeps_its_reason_and_its_attempts(database: Database) -> None:
    with database.write() as tx:
        row = new_document(tx, new_store(tx))
        for _ in range(2):
            jobs.take(tx, jobs.Holder(1, 1), 1, 100)
        chunks.fail(tx, row.id, "invalid_file", "No text.")
        job = job_views.find(tx, CALLER, row.id)
        assert job is not None
        assert (job.status, job.error_code, job.error_message, job.attempts) == (
            "failed",
            "invalid_file",
            "No text.",
            2,
        )
        assert job.since >= job.created_at


def test_the_listing_has_every_state_but_the_completed(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ingested(tx, store, "done")
        beyond, failed, cancelled, held, queued = (new_document(tx, store) for _ in range(5))
        tx.execute("UPDATE jobs SET due_at = 9e9 WHERE document_id NOT IN (?)", (held.id,))
        jobs.take(tx, jobs.Holder(1, 1), 1, 100)
        chunks.complete(tx, beyond.id, new_chunks("x"))
        chunks.fail(tx, failed.id, "invalid_file", "No.")
        jobs.cancel(tx, cancelled.id)
        shown = {store.id: beyond.seq - 1}
        states = {job.document_id: job.status for job in listed(tx, shown=shown)}
        expected = {
            queued.id: "queued",
            held.id: "parsing",
            cancelled.id: "cancelled",
            failed.id: "failed",
            beyond.id: "publishing",
        }
        assert list(states.items()) == list(expected.items())
        for document_id, status in expected.items():
            assert [job.document_id for job in listed(tx, shown=shown, status=status)] == [document_id]
        assert job_views.publishing(tx, shown) == 1
        assert job_views.publishing(tx, {}) == 0


def test_the_listing_has_pages(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ids = [new_document(tx, store).id for _ in range(5)][::-1]
        assert [job.document_id for job in listed(tx, limit=2)] == ids[:2]
        assert [job.document_id for job in listed(tx, limit=2, after=ids[1])] == ids[2:4]
        assert listed(tx, after=ids[-1]) == []


def test_nobody_sees_the_jobs_of_another_tenant_store_or_key(database: Database) -> None:
    with database.write() as tx:
        mine, other, foreign = new_store(tx), new_store(tx), new_store(tx, tenant="b")
        rows = [new_document(tx, store) for store in (mine, other, foreign)]
        bound = Caller(stores=frozenset([mine.id, foreign.id]))
        assert [job.store_id for job in listed(tx)] == [other.id, mine.id]
        assert [job.store_id for job in listed(tx, bound)] == [mine.id]
        assert [job.store_id for job in listed(tx, store_id=other.id)] == [other.id]
        assert listed(tx, Caller(stores=frozenset())) == []
        assert [job_views.find(tx, bound, row.id) is not None for row in rows] == [True, False, False]
        stores.mark_deleted(tx, mine.id)
        assert job_views.find(tx, CALLER, rows[0].id) is None


def test_a_replaced_version_is_not_listed_and_knows_its_successor(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        failed = new_document(tx, store, "a")
        chunks.fail(tx, failed.id, "invalid_file", "No.")
        new = new_document(tx, store, "a")
        assert job_views.versions_after(tx, failed.id) == [new.id]
        assert job_views.versions_after(tx, new.id) == []
        chunks.complete(tx, new.id, new_chunks("x"))
        assert listed(tx) == []
