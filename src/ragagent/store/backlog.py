"""How much waits to be ingested, how fast it goes, and how much of a store is taken: what admission is decided by."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ragagent.store.database import Transaction

LATELY_SECONDS = 60
BUCKET_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Load:
    """Documents and their bytes."""

    documents: int = 0
    bytes: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.documents + other.documents, self.bytes + other.bytes)

    def __sub__(self, other: Load) -> Load:
        return Load(self.documents - other.documents, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class Rate:
    """What left the queue in a second, over the last minute."""

    documents: float = 0.0
    bytes: float = 0.0


def load(tx: Transaction) -> Load:
    """Return what waits in the queue."""
    return Load(*tx.execute("SELECT documents, bytes FROM queued").fetchone())


def stages(tx: Transaction) -> Mapping[str, int]:
    """Return how many jobs stand in each stage that has any."""
    return dict(tx.execute("SELECT stage, count(*) FROM jobs GROUP BY stage"))


def note_drained(tx: Transaction, documents: int, size: int) -> None:
    """Count what the indexer is done with. What is cancelled or deleted says nothing about how fast it is."""
    now = int(time.time())
    # Rows of the future are those of a clock that was set back.
    tx.execute("DELETE FROM drained WHERE at < ? OR at > ?", (now - LATELY_SECONDS, now))
    tx.execute(
        "INSERT INTO drained (at, documents, bytes) VALUES (?, ?, ?) ON CONFLICT (at)"
        " DO UPDATE SET documents = documents + excluded.documents, bytes = bytes + excluded.bytes",
        (now - now % BUCKET_SECONDS, documents, size),
    )


def rate(tx: Transaction) -> Rate:
    now = time.time()
    first, documents, size = tx.execute(
        "SELECT min(at), coalesce(sum(documents), 0), coalesce(sum(bytes), 0) FROM drained WHERE at BETWEEN ? AND ?",
        (int(now) - LATELY_SECONDS, int(now)),
    ).fetchone()
    if first is None:
        return Rate()
    seconds = max(now - first, 1.0)
    return Rate(documents / seconds, size / seconds)


def usage(tx: Transaction, store_id: str) -> Load:
    """Return what a store holds and is about to hold; what failed or was cancelled takes no room.

    The bytes are those of texts and vectors once they are completed, those of the files before.
    """
    row = tx.execute(
        "SELECT in_progress + completed, usage_bytes FROM store_totals WHERE store_id = ?", (store_id,)
    ).fetchone()
    waiting = tx.execute("SELECT coalesce(sum(bytes), 0) FROM jobs WHERE store_id = ?", (store_id,)).fetchone()
    return Load(row[0], row[1] + waiting[0])


def superseded(tx: Transaction, store_id: str) -> Load:
    """Return the part of `usage` that goes away by itself: versions that a newer one in the queue will replace."""
    row = tx.execute(
        """SELECT count(*), coalesce(sum(weight), 0) FROM (
               SELECT DISTINCT old.id, old.usage_bytes + coalesce(waiting.bytes, 0) AS weight
               FROM jobs j JOIN documents new ON new.id = j.document_id
               JOIN documents old ON old.store_id = new.store_id AND old.external_id = new.external_id
                   AND old.seq < new.seq AND old.dead_seq IS NULL AND old.status IN ('in_progress', 'completed')
               LEFT JOIN jobs waiting ON waiting.document_id = old.id
               WHERE j.store_id = ?)""",
        (store_id,),
    ).fetchone()
    return Load(row[0], row[1])


def weight(tx: Transaction, document_id: int) -> int:
    """Return the bytes that a document has in `usage`."""
    row = tx.execute(
        "SELECT d.usage_bytes + coalesce(j.bytes, 0) FROM documents d LEFT JOIN jobs j ON j.document_id = d.id"
        " WHERE d.id = ?",
        (document_id,),
    ).fetchone()
    return int(row[0]) if row else 0
