"""Rows of large documents on their way: pieces, and the vectors made of them so far. They vanish with their job."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragagent.store import jobs
from ragagent.store.chunks import NewChunk, packed, unpacked
from ragagent.store.database import Transaction
from ragagent.store.jobs import JobRow

Piece = tuple[int, int, int, str]  # ordinal, start, end, text


def begin(tx: Transaction, document_id: int) -> None:
    """Forget what an earlier attempt left: a kill may have come between two slices."""
    tx.execute("DELETE FROM staged_chunks WHERE document_id = ?", (document_id,))
    tx.execute("DELETE FROM staged_vectors WHERE document_id = ?", (document_id,))
    tx.execute("UPDATE jobs SET staged_for = NULL, chunks_done = 0 WHERE document_id = ?", (document_id,))


def put_pieces(tx: Transaction, job: JobRow, pieces: Sequence[Piece]) -> bool:
    """Stage pieces; False: the job is gone."""
    if not jobs.exists(tx, job):
        return False
    tx.executemany(
        'INSERT INTO staged_chunks (document_id, ordinal, start, "end", text) VALUES (?, ?, ?, ?, ?)',
        ((job.document_id, *piece) for piece in pieces),
    )
    return True


def finish_pieces(tx: Transaction, job: JobRow, count: int) -> None:
    """Say that all pieces are there: from now on the job has turns of its own, and is parsed no more."""
    tx.execute(
        "UPDATE jobs SET staged_for = ?, chunks_done = 0, chunks_total = ? WHERE document_id = ? AND seq = ?",
        (str(job.space), count, job.document_id, job.seq),
    )


def texts(tx: Transaction, document_id: int, start: int, limit: int) -> list[str]:
    """Return the texts of the pieces from ordinal `start` on."""
    rows = tx.execute(
        "SELECT text FROM staged_chunks WHERE document_id = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?",
        (document_id, start, limit),
    )
    return [row[0] for row in rows]


def put_vectors(tx: Transaction, job: JobRow, start: int, vectors: np.ndarray) -> bool:
    """Stage vectors, float32 (count, dimension), of the pieces from ordinal `start` on; False: the job is gone."""
    if not jobs.exists(tx, job):
        return False
    tx.executemany(
        "INSERT OR REPLACE INTO staged_vectors (document_id, ordinal, vector) VALUES (?, ?, ?)",
        ((job.document_id, start + at, packed(vector)) for at, vector in enumerate(vectors)),
    )
    jobs.advance(tx, job.document_id, start + len(vectors))
    return True


def chunks(tx: Transaction, document_id: int) -> list[NewChunk]:
    """Return the document whole, in order."""
    rows = tx.execute(
        'SELECT c.ordinal, c.start, c."end", c.text, v.vector FROM staged_chunks c'
        " JOIN staged_vectors v ON v.document_id = c.document_id AND v.ordinal = c.ordinal"
        " WHERE c.document_id = ? ORDER BY c.ordinal",
        (document_id,),
    )
    return [NewChunk(row["ordinal"], row["start"], row["end"], row["text"], unpacked(row["vector"])) for row in rows]
