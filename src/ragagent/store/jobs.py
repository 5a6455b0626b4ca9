"""The queue of documents to ingest. A job ends by vanishing, in the transaction that stores its result.

Until then it says how far it is. `attempts` is counted before the work begins and is on disk then, so that a document
that kills the indexer is known by it; progress that is on disk sets it back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ragagent.errors import RagagentError
from ragagent.store.database import Transaction, next_seq
from ragagent.store.stores import touch
from ragagent.types import EmbeddingSpace

Stage = Literal["queued", "parsing", "embedding"]


@dataclass(frozen=True, slots=True)
class Holder:
    """The process at work on a job. `start`, its start in clock ticks, tells it from a later one of the same pid."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class JobRow:
    document_id: int
    seq: int
    store_id: str
    file_id: str
    filename: str
    is_text: bool  # stored as text through the native route: there is nothing to parse
    bytes: int
    model: str
    dimension: int
    chunk_tokens: int
    overlap_tokens: int
    attempts: int
    traceparent: str | None
    chunks_done: int
    chunks_total: int
    staged_for: str | None  # the space, as text, of the vectors that are staged; None: nothing is

    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace(self.model, self.dimension)


@dataclass(frozen=True, slots=True)
class Work:
    """How far a job in hand is."""

    document_id: int
    stage: Stage
    chunks_total: int = 0


def add(tx: Transaction, *, document_id: int, traceparent: str | None) -> None:
    """Queue a document at its seq."""
    tx.execute(
        "INSERT INTO jobs (document_id, store_id, seq, bytes, created_at, stage_at, traceparent)"
        " SELECT d.id, d.store_id, d.seq, f.bytes, ?, ?, ? FROM documents d JOIN files f ON f.id = d.file_id"
        " WHERE d.id = ?",
        (int(time.time()), time.time(), traceparent, document_id),
    )


def take(tx: Transaction, holder: Holder, limit: int, max_bytes: int) -> list[JobRow]:
    """Return the oldest jobs that are due (always one, however large) and count the attempt.

    What was taken before is taken alone: its neighbours must not be counted down with it. What is staged has its own
    turns: see `take_staged`.
    """
    taken: list[JobRow] = []
    for row in _rows(tx, _FRESH, (time.time(),), limit):
        if taken and (row.attempts > 1 or sum(job.bytes for job in taken) + row.bytes > max_bytes):
            break
        taken.append(row)
        if row.attempts > 1:
            break
    _hold(tx, holder, taken, "parsing")
    return taken


def any_due(tx: Transaction) -> bool:
    """Return whether `take` would find anything."""
    return _finds_any(tx, _FRESH)


def any_staged_due(tx: Transaction) -> bool:
    """Return whether `take_staged` would."""
    return _finds_any(tx, _STAGED)


def take_staged(tx: Transaction, holder: Holder) -> JobRow | None:
    """Return the oldest large document whose pieces are staged, and count the attempt."""
    taken = _rows(tx, _STAGED, (time.time(),), 1)
    _hold(tx, holder, taken, "embedding")
    return taken[0] if taken else None


def give_back(tx: Transaction, document_ids: Iterable[int], reason: RagagentError | None = None) -> None:
    """Uncount attempts that ended by no fault of the documents, and say why, if there is a reason."""
    code, message = (reason.code, reason.message) if reason else (None, None)
    tx.executemany(
        "UPDATE jobs SET attempts = max(attempts - 1, 0), error_code = coalesce(?, error_code),"
        f" error_message = coalesce(?, error_message), {_RELEASED} WHERE document_id = ?",
        ((code, message, time.time(), document_id) for document_id in document_ids),
    )


def postpone(tx: Transaction, document_id: int, reason: RagagentError, seconds: float) -> None:
    """End an attempt that failed by a fault of its own: it stays counted, and others go first for a while."""
    tx.execute(
        f"UPDATE jobs SET error_code = ?, error_message = ?, due_at = ?, {_RELEASED} WHERE document_id = ?",
        (reason.code, reason.message, time.time() + seconds, time.time(), document_id),
    )


def reclaim(tx: Transaction, holder: Holder) -> int:
    """Take what is left of earlier holders back into the queue; return how much that was.

    For whoever holds the lock of the one indexer: so they are gone, and their attempts stay counted.
    """
    return tx.execute(
        "UPDATE jobs SET error_code = 'indexer_gone', error_message = 'The indexer (pid ' || holder_pid || ') ended"
        f" before this document was done.', {_RELEASED}"
        " WHERE holder_pid IS NOT NULL AND NOT (holder_pid = ? AND holder_start = ?)",
        (time.time(), holder.pid, holder.start),
    ).rowcount


def beat(tx: Transaction, works: Sequence[Work]) -> None:
    """Write down how far the jobs in hand are, and that their holder lives.

    Not how many chunks are done: that is the vectors' to say, in their own transaction, and a word that comes late
    would set it back.
    """
    now = time.time()
    tx.executemany(
        "UPDATE jobs SET stage_at = iif(stage = :stage, stage_at, :now), stage = :stage, beat_at = :now,"
        " chunks_total = iif(staged_for IS NULL, :total, chunks_total)"
        " WHERE document_id = :id AND holder_pid IS NOT NULL",
        ({"stage": w.stage, "now": now, "total": w.chunks_total, "id": w.document_id} for w in works),
    )


def advance(tx: Transaction, document_id: int, chunks_done: int) -> None:
    """Note progress that a kill cannot take back: the attempt under way counts as the first again."""
    tx.execute(
        "UPDATE jobs SET chunks_done = ?, attempts = 1, error_code = NULL, error_message = NULL, beat_at = ?"
        " WHERE document_id = ?",
        (chunks_done, time.time(), document_id),
    )


def again(tx: Transaction, document_id: int) -> None:
    """Queue a document that failed or was cancelled once more.

    At a new seq: what its store shows has gone past the old one, and chunks below that would never be published.
    """
    seq = next_seq(tx)
    (store_id,) = tx.execute(
        "UPDATE documents SET status = 'in_progress', error_code = NULL, error_message = NULL, settled_at = NULL,"
        " attempts = 0, seq = ? WHERE id = ? RETURNING store_id",
        (seq, document_id),
    ).fetchone()
    add(tx, document_id=document_id, traceparent=None)
    touch(tx, store_id, seq)


def hurry(tx: Transaction, document_id: int) -> None:
    """Let a job that waits for its next attempt have it now, as if it were the first."""
    tx.execute("UPDATE jobs SET due_at = 0, attempts = 0 WHERE document_id = ? AND holder_pid IS NULL", (document_id,))


def cancel(tx: Transaction, document_id: int) -> None:
    """Give a document up that is not completed. What the indexer has made of it goes with the job."""
    tx.execute(
        "UPDATE documents SET status = 'cancelled', settled_at = ?,"
        " attempts = coalesce((SELECT attempts FROM jobs WHERE document_id = documents.id), 0)"
        " WHERE id = ? AND status = 'in_progress'",
        (int(time.time()), document_id),
    )
    tx.execute("DELETE FROM jobs WHERE document_id = ?", (document_id,))


def exists(tx: Transaction, job: JobRow) -> bool:
    """Return False for a job that was cancelled, or whose document was deleted, while it was in hand.

    Also where it was queued again meanwhile: that is another job, and nothing of this one belongs to it.
    """
    found = tx.execute("SELECT 1 FROM jobs WHERE document_id = ? AND seq = ?", (job.document_id, job.seq))
    return found.fetchone() is not None


def has_moved(tx: Transaction, job: JobRow) -> bool:
    """Return whether its store has changed to another model while the job was in hand."""
    row = tx.execute("SELECT model, dimension FROM vector_stores WHERE id = ?", (job.store_id,)).fetchone()
    return row is not None and (row["model"], row["dimension"]) != (job.model, job.dimension)


def watermark(tx: Transaction, store_id: str) -> int:
    """Return the seq up to which everything written to the store has been ingested (or has failed)."""
    row = tx.execute(
        "SELECT coalesce((SELECT min(seq) - 1 FROM jobs WHERE store_id = :id),"
        " (SELECT seq FROM vector_stores WHERE id = :id), 0)",
        {"id": store_id},
    ).fetchone()
    return int(row[0])


def oldest_age(tx: Transaction) -> float:
    """Return how many seconds the oldest job has waited; 0 when there is none."""
    row = tx.execute("SELECT created_at FROM jobs ORDER BY seq LIMIT 1").fetchone()
    return 0.0 if row is None else max(time.time() - row[0], 0.0)


def depth(tx: Transaction) -> int:
    return int(tx.execute("SELECT documents FROM queued").fetchone()[0])


_RELEASED = (
    "stage_at = iif(stage = 'queued', stage_at, ?), stage = 'queued', holder_pid = NULL, holder_start = NULL,"
    " beat_at = NULL"
)


_FRESH = "j.staged_for IS NULL AND j.due_at <= ?"
_STAGED = "j.staged_for IS NOT NULL AND j.due_at <= ?"


def _finds_any(tx: Transaction, where: str) -> bool:
    return tx.execute(f"SELECT 1 FROM jobs j WHERE {where} LIMIT 1", (time.time(),)).fetchone() is not None


def _rows(tx: Transaction, where: str, parameters: Sequence[object], limit: int) -> list[JobRow]:
    rows = tx.execute(
        f"""SELECT j.document_id, j.seq, j.store_id, d.file_id, f.filename, d.external_id IS NOT NULL AS is_text,
                   j.bytes, s.model, s.dimension, d.chunk_tokens, d.overlap_tokens, j.attempts + 1 AS attempts,
                   j.traceparent, j.chunks_done, j.chunks_total, j.staged_for
            FROM jobs j JOIN documents d ON d.id = j.document_id JOIN files f ON f.id = d.file_id
            JOIN vector_stores s ON s.id = j.store_id
            WHERE {where} ORDER BY j.seq LIMIT ?""",
        (*parameters, limit),
    )
    return [_job(row) for row in rows]


def _job(row: sqlite3.Row) -> JobRow:
    return JobRow(**{**{key: row[key] for key in JobRow.__slots__}, "is_text": bool(row["is_text"])})


def _hold(tx: Transaction, holder: Holder, taken: Sequence[JobRow], stage: Stage) -> None:
    now = time.time()
    tx.executemany(
        "UPDATE jobs SET attempts = attempts + 1, stage_at = ?, stage = ?, holder_pid = ?, holder_start = ?,"
        " beat_at = ? WHERE document_id = ?",
        ((now, stage, holder.pid, holder.start, now, job.document_id) for job in taken),
    )
