"""The queue of documents to ingest. A job ends by vanishing, in the transaction that stores its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ragagent.store.database import Transaction


@dataclass(frozen=True, slots=True)
class JobRow:
    document_id: int
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


def take(tx: Transaction, limit: int, max_bytes: int) -> list[JobRow]:
    """Return the oldest jobs (always one, however large) and count the attempt.

    The count is on disk before the work begins, so that a document that kills the indexer is known by it. What was
    taken before is taken alone: its neighbours must not be counted down with it.
    """
    rows = tx.execute(
        """SELECT j.document_id, j.store_id, d.file_id, f.filename, d.external_id IS NOT NULL AS is_text, f.bytes,
                  s.model, s.dimension, d.chunk_tokens, d.overlap_tokens, j.attempts + 1 AS attempts, j.traceparent
           FROM jobs j JOIN documents d ON d.id = j.document_id JOIN files f ON f.id = d.file_id
           JOIN vector_stores s ON s.id = j.store_id
           ORDER BY j.seq LIMIT ?""",
        (limit,),
    ).fetchall()
    taken: list[JobRow] = []
    for row in rows:
        if taken and (row["attempts"] > 1 or sum(job.bytes for job in taken) + row["bytes"] > max_bytes):
            break
        taken.append(JobRow(**{**{key: row[key] for key in JobRow.__slots__}, "is_text": bool(row["is_text"])}))
        if row["attempts"] > 1:
            break
    tx.executemany("UPDATE jobs SET attempts = attempts + 1 WHERE document_id = ?", ((j.document_id,) for j in taken))
    return taken


def give_back(tx: Transaction, taken: Sequence[JobRow]) -> None:
    """Uncount attempts whose failure was not the documents' fault."""
    tx.executemany("UPDATE jobs SET attempts = attempts - 1 WHERE document_id = ?", ((j.document_id,) for j in taken))


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
    row = tx.execute("SELECT min(created_at) FROM jobs").fetchone()
    return 0.0 if row[0] is None else max(time.time() - row[0], 0.0)


def depth(tx: Transaction) -> int:
    return int(tx.execute("SELECT count(*) FROM jobs").fetchone()[0])
