"""What becomes of documents, written down: stored whole, failed for good, or to be tried again a little later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from ragagent import names, telemetry
from ragagent.engine.indexing.drafting import MACHINES, MAX_ATTEMPTS, Draft, fault
from ragagent.store import backlog, chunks, jobs, staging
from ragagent.store.database import Database, Transaction

log = logging.getLogger("ragagent.indexer")

POSTPONE_SECONDS = 1.0  # after the first attempt; what its store shows waits for it, so not for long

Outcome = Literal["indexed", "failed", "postponed", "gone"]


async def settle(database: Database, drafts: Sequence[Draft]) -> None:
    """Write the drafts down in one transaction; where one of them makes that fail, it fails alone."""
    try:
        outcomes = await database.update(lambda tx: _all(tx, drafts))
    except MACHINES:
        raise
    except Exception as exc:
        if len(drafts) == 1 and drafts[0].fault is not None:
            raise  # Not even that can be written.
        log.exception("%d documents could not be stored", len(drafts))
        for draft in drafts:
            await settle(database, [Draft(draft.job, fault=fault(exc)) if len(drafts) == 1 else draft])
        return
    for outcome in outcomes:
        if outcome in ("indexed", "failed"):
            telemetry.count(names.INGESTED_DOCUMENTS, attributes={names.INGEST_OUTCOME: outcome})


def _all(tx: Transaction, drafts: Sequence[Draft]) -> list[Outcome]:
    outcomes = [_one(tx, draft) for draft in drafts]
    done = [draft.job for draft, outcome in zip(drafts, outcomes, strict=True) if outcome not in ("postponed", "gone")]
    if done:
        backlog.note_drained(tx, len(done), sum(job.bytes for job in done))
    return outcomes


def _one(tx: Transaction, draft: Draft) -> Outcome:
    job = draft.job
    if draft.fault is not None and job.attempts < MAX_ATTEMPTS:
        jobs.postpone(tx, job.document_id, draft.fault, POSTPONE_SECONDS * 4 ** (job.attempts - 1))
        return "postponed"
    if draft.fault is not None:
        message = f"It failed {MAX_ATTEMPTS} times, the last time so: {draft.fault.message}"
        chunks.fail(tx, job.document_id, "server_error", message)
        return "failed"
    if draft.error is not None:
        chunks.fail(tx, job.document_id, draft.error.code, draft.error.message)
        return "failed"
    if draft.is_staged and not jobs.exists(tx, job):
        return "gone"
    if jobs.has_moved(tx, job):
        jobs.give_back(tx, [job.document_id])  # These vectors would be compared with those of another model.
        return "postponed"
    new = staging.chunks(tx, job.document_id) if draft.is_staged else draft.chunks()
    if draft.is_staged and len(new) != job.chunks_total:
        staging.begin(tx, job.document_id)  # Never a part of a document for the whole: it is made anew.
        jobs.give_back(tx, [job.document_id])
        return "postponed"
    return "indexed" if chunks.complete(tx, job.document_id, new) else "gone"
