"""Jobs as a user sees them: those in the queue, those that are over, and those that only have to be published."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ragagent.store.database import Transaction
from ragagent.types import Caller, Job

STAGES = ("queued", "parsing", "embedding")
LAGGING_STORES = 100  # that one listing looks into for documents that only have to be published

_JOBS = """
    SELECT d.id AS document_id, d.store_id, d.file_id, f.filename, d.external_id, f.bytes, d.seq,
           iif(d.status = 'in_progress', coalesce(j.stage, 'queued'), d.status) AS status,
           iif(d.status = 'completed', d.chunk_count, coalesce(j.chunks_done, 0)) AS chunks_done,
           iif(d.status = 'completed', d.chunk_count, coalesce(j.chunks_total, 0)) AS chunks_total,
           coalesce(j.attempts, d.attempts) AS attempts, coalesce(j.created_at, d.created_at) AS created_at,
           coalesce(j.stage_at, d.settled_at, d.created_at) AS since, coalesce(j.due_at, 0) AS due_at,
           coalesce(j.error_code, d.error_code) AS error_code,
           coalesce(j.error_message, d.error_message) AS error_message,
           j.holder_pid, j.holder_start, j.beat_at
    FROM documents d JOIN files f ON f.id = d.file_id
    JOIN vector_stores s ON s.id = d.store_id AND s.deleted_at IS NULL
    LEFT JOIN jobs j ON j.document_id = d.id
"""


def find(tx: Transaction, caller: Caller, document_id: int) -> Job | None:
    """Return the job as SQLite knows it: `completed` is not yet what a search can find."""
    row = tx.execute(f"{_JOBS} WHERE d.id = ? AND s.tenant = ?", (document_id, caller.tenant)).fetchone()
    return _job(row) if row and caller.may_use(row["store_id"]) else None


def listing(
    tx: Transaction,
    caller: Caller,
    shown: Mapping[str, int],
    *,
    store_id: str | None,
    status: str | None,
    after: int | None,
    limit: int,
) -> list[Job]:
    """Return jobs that are not completed for a reader, newest first, older than the one named `after`.

    `shown` says of each store that lags behind its writes up to which seq its readers see it.
    """
    where, parameters = "s.tenant = ? AND d.dead_seq IS NULL", [caller.tenant]
    stores = [store_id] if store_id else None if caller.stores is None else sorted(caller.stores)
    rows: list[Job] = []
    for condition, values in _conditions(shown, status):
        sql, bound = f"{where} AND {condition}", [*parameters, *values]
        if stores is not None:
            sql, bound = f"{sql} AND d.store_id IN ({_marks(stores)})", [*bound, *stores]
        if after is not None:
            sql, bound = f"{sql} AND d.id < ?", [*bound, after]
        rows += map(_job, tx.execute(f"{_JOBS} WHERE {sql} ORDER BY d.id DESC LIMIT ?", (*bound, limit)))
    rows.sort(key=lambda job: -job.document_id)
    return [visible(job, shown) for job in rows[:limit]]


def publishing(tx: Transaction, shown: Mapping[str, int]) -> int:
    """Return how many documents are stored and not yet shown."""
    condition, values = _beyond(shown)
    row = tx.execute(
        f"SELECT count(*) FROM documents d WHERE d.status = 'completed' AND d.dead_seq IS NULL AND {condition}", values
    )
    return int(row.fetchone()[0])


def visible(job: Job, shown: Mapping[str, int]) -> Job:
    if job.status == "completed" and job.seq > shown.get(job.store_id, job.seq):
        return dataclasses.replace(job, status="publishing")
    return job


def versions_after(tx: Transaction, document_id: int) -> list[int]:
    """Return newer versions of the same external id, of whatever state, newest first."""
    rows = tx.execute(
        "SELECT new.id FROM documents old JOIN documents new ON new.store_id = old.store_id"
        " AND new.external_id = old.external_id AND new.seq > old.seq WHERE old.id = ? ORDER BY new.seq DESC",
        (document_id,),
    )
    return [row[0] for row in rows]


def _conditions(shown: Mapping[str, int], status: str | None) -> list[tuple[str, list[Any]]]:
    """Return the conditions whose rows together are what is asked for; each has an index that gives its order."""
    if status in STAGES:
        return [("d.status <> 'completed' AND j.stage = ?", [status])]
    if status in ("failed", "cancelled"):
        return [("d.status <> 'completed' AND d.status = ?", [status])]
    condition, values = _beyond(shown)
    beyond = [(f"d.status = 'completed' AND {condition}", values)]
    return beyond if status == "publishing" else [("d.status <> 'completed'", []), *beyond]


def _beyond(shown: Mapping[str, int]) -> tuple[str, list[Any]]:
    pairs = list(shown.items())[:LAGGING_STORES]
    condition = " OR ".join(["d.store_id = ? AND d.seq > ?"] * len(pairs)) or "0"
    return f"({condition})", [value for pair in pairs for value in pair]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _job(row: sqlite3.Row) -> Job:
    return Job(**{key: row[key] for key in Job.__slots__})
