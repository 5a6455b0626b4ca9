"""Rows of documents: a file in a store, with its attributes and its state.

Writes here come from workers. What the indexer makes of a document (chunks, a replaced version) is in `chunks`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence

from ragagent.store import jobs
from ragagent.store.database import Transaction, next_seq
from ragagent.store.pages import keyset
from ragagent.store.stores import touch
from ragagent.types import Attributes, Batch, Document, Page


def add(
    tx: Transaction,
    *,
    store_id: str,
    file_id: str,
    external_id: str | None,
    batch_id: str | None,
    attributes: Attributes,
    chunk_tokens: int,
    overlap_tokens: int,
    traceparent: str | None,
) -> Document:
    """Add a document and its job: one transaction, so that what is acknowledged is also queued."""
    seq = next_seq(tx)
    now = int(time.time())
    row = tx.execute(
        "INSERT INTO documents (store_id, file_id, external_id, batch_id, attributes, status, chunk_tokens,"
        " overlap_tokens, created_at, seq) VALUES (?, ?, ?, ?, ?, 'in_progress', ?, ?, ?, ?) RETURNING *",
        (
            store_id,
            file_id,
            external_id,
            batch_id,
            json.dumps(dict(attributes), ensure_ascii=False),
            chunk_tokens,
            overlap_tokens,
            now,
            seq,
        ),
    ).fetchone()
    jobs.add(tx, document_id=row["id"], traceparent=traceparent)
    touch(tx, store_id, seq)
    return _document(row)


def find(tx: Transaction, store_id: str, file_id: str) -> Document | None:
    row = tx.execute("SELECT * FROM documents WHERE store_id = ? AND file_id = ?", (store_id, file_id)).fetchone()
    return _document(row) if row else None


def versions(tx: Transaction, store_id: str, external_id: str) -> list[Document]:
    """Return the versions of an external id that are not replaced yet, newest first."""
    rows = tx.execute(
        "SELECT * FROM documents WHERE store_id = ? AND external_id = ? AND dead_seq IS NULL ORDER BY seq DESC",
        (store_id, external_id),
    )
    return [_document(row) for row in rows]


def is_there(tx: Transaction, document: Document, sha256: str, filename: str) -> bool:
    """Return whether these bytes, under this name, are what the document is made of, or is going to be.

    What failed or was cancelled is not there, however equal it is.
    """
    row = tx.execute("SELECT sha256, filename FROM files WHERE id = ?", (document.file_id,)).fetchone()
    is_same = row is not None and (row["sha256"], row["filename"]) == (sha256, filename)
    return is_same and document.status in ("in_progress", "completed")


def same_attributes(one: Attributes, other: Attributes) -> bool:
    """Compare by text: to Python, true equals 1."""
    return repr(sorted(one.items())) == repr(sorted(other.items()))


def replaced(tx: Transaction, store_id: str, external_id: str) -> list[Document]:
    """Return the versions that a newer one replaced and that readers of an older manifest may still see."""
    rows = tx.execute(
        "SELECT * FROM documents WHERE store_id = ? AND external_id = ? AND dead_seq IS NOT NULL",
        (store_id, external_id),
    )
    return [_document(row) for row in rows]


def of_file(tx: Transaction, file_id: str) -> list[Document]:
    return [_document(row) for row in tx.execute("SELECT * FROM documents WHERE file_id = ?", (file_id,))]


def listing(
    tx: Transaction, store_id: str, visible_seq: int, page: Page, *, batch_id: str | None, status: str | None
) -> list[Document]:
    """Return a page of the store's (or the batch's) documents, by the state that a user sees."""
    where = "store_id = ? AND (dead_seq IS NULL OR dead_seq > ?)"
    parameters: list[object] = [store_id, visible_seq]
    if batch_id:
        where, parameters = f"{where} AND batch_id = ?", [*parameters, batch_id]
    if status:
        seen = "CASE WHEN status = 'completed' AND seq > ? THEN 'in_progress' ELSE status END"
        where, parameters = f"{where} AND {seen} = ?", [*parameters, visible_seq, status]
    rows = keyset(tx, "documents", where, parameters, page, id_column="file_id")
    return [_document(row) for row in rows]


def set_attributes(tx: Transaction, document: Document, attributes: Attributes) -> int:
    """Replace the attributes. Filters follow what SQLite says, so the change is seen at once; return its seq."""
    seq = next_seq(tx)
    tx.execute(
        "UPDATE documents SET attributes = ? WHERE id = ?",
        (json.dumps(dict(attributes), ensure_ascii=False), document.id),
    )
    touch(tx, document.store_id, seq)
    return seq


def remove(tx: Transaction, document: Document) -> int:
    """Erase the document and its chunks: no answer can quote it from here on. Return the seq."""
    seq = next_seq(tx)
    bury(tx, "document_id = ?", (document.id,), seq)
    tx.execute("DELETE FROM documents WHERE id = ?", (document.id,))
    touch(tx, document.store_id, seq)
    return seq


def remove_file(tx: Transaction, file_id: str) -> None:
    """Erase the file and every document made from it, in whatever store."""
    for document in of_file(tx, file_id):
        remove(tx, document)
    tx.execute("DELETE FROM files WHERE id = ?", (file_id,))


def bury(tx: Transaction, where: str, parameters: Sequence[object], seq: int) -> None:
    """Leave a tombstone for each chunk that matches, so that the next publish takes it out of the index."""
    tx.execute(
        f"INSERT OR REPLACE INTO tombstones (chunk_id, store_id, seq) SELECT id, store_id, ? FROM chunks WHERE {where}",
        (seq, *parameters),
    )


def cancel(tx: Transaction, batch_id: str) -> int:
    """Cancel what the batch has not ingested yet; return how many documents that were."""
    tx.execute("UPDATE batches SET cancelled_at = ? WHERE id = ?", (int(time.time()), batch_id))
    of_batch = "SELECT id FROM documents WHERE batch_id = ? AND status = 'in_progress'"
    pending = tx.execute(of_batch, (batch_id,)).fetchall()
    for row in pending:
        jobs.cancel(tx, row["id"])
    return len(pending)


def add_batch(tx: Transaction, store_id: str) -> Batch:
    batch = Batch(f"vsfb_{secrets.token_hex(12)}", store_id, int(time.time()), None)
    tx.execute(
        "INSERT INTO batches (id, store_id, created_at) VALUES (?, ?, ?)", (batch.id, store_id, batch.created_at)
    )
    return batch


def batch_size(tx: Transaction, batch_id: str) -> int:
    return int(tx.execute("SELECT count(*) FROM documents WHERE batch_id = ?", (batch_id,)).fetchone()[0])


def find_batch(tx: Transaction, store_id: str, batch_id: str) -> Batch | None:
    row = tx.execute("SELECT * FROM batches WHERE store_id = ? AND id = ?", (store_id, batch_id)).fetchone()
    return Batch(row["id"], row["store_id"], row["created_at"], row["cancelled_at"]) if row else None


def _document(row: sqlite3.Row) -> Document:
    values = {key: row[key] for key in Document.__slots__}
    return Document(**{**values, "attributes": json.loads(row["attributes"])})
