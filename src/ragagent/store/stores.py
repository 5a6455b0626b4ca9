"""Rows of vector stores."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence

from ragagent.store import files
from ragagent.store.database import Transaction, next_seq
from ragagent.store.pages import keyset
from ragagent.types import Caller, Counts, EmbeddingSpace, Page, VectorStore


def add(
    tx: Transaction,
    *,
    tenant: str,
    name: str,
    metadata: Mapping[str, str],
    model: str,
    dimension: int,
    chunk_tokens: int,
    overlap_tokens: int,
    store_id: str | None = None,
    created_at: int | None = None,
) -> VectorStore:
    row = VectorStore(
        id=store_id or f"vs_{secrets.token_hex(12)}",
        tenant=tenant,
        name=name,
        metadata=metadata,
        model=model,
        dimension=dimension,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        created_at=int(time.time()) if created_at is None else created_at,
        seq=next_seq(tx),
    )
    tx.execute(
        "INSERT INTO vector_stores (id, tenant, name, metadata, model, dimension, chunk_tokens, overlap_tokens,"
        " created_at, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.id,
            tenant,
            name,
            json.dumps(dict(metadata)),
            model,
            dimension,
            chunk_tokens,
            overlap_tokens,
            row.created_at,
            row.seq,
        ),
    )
    return row


def find(tx: Transaction, tenant: str, name_or_id: str) -> VectorStore | None:
    """Return the store of that id, else the oldest one of that name, else None."""
    row = tx.execute(
        "SELECT * FROM vector_stores WHERE tenant = ? AND (id = ? OR name = ?) AND deleted_at IS NULL"
        " ORDER BY id = ? DESC, created_at, rowid LIMIT 1",
        (tenant, name_or_id, name_or_id, name_or_id),
    ).fetchone()
    return _store(row) if row else None


def listing(tx: Transaction, tenant: str, ids: Sequence[str] | None, page: Page) -> list[VectorStore]:
    """Return a page of stores in the order of their creation. `ids` narrows them to what a key may see."""
    where, parameters = "tenant = ? AND deleted_at IS NULL", [tenant]
    if ids is not None:
        where += f" AND id IN ({', '.join('?' * len(ids))})"
        parameters += ids
    return [_store(row) for row in keyset(tx, "vector_stores", where, parameters, page)]


def touch(tx: Transaction, store_id: str, seq: int) -> None:
    tx.execute("UPDATE vector_stores SET seq = ? WHERE id = ?", (seq, store_id))


def update(tx: Transaction, store_id: str, *, name: str | None, metadata: Mapping[str, str] | None) -> None:
    tx.execute(
        "UPDATE vector_stores SET name = coalesce(?, name), metadata = coalesce(?, metadata) WHERE id = ?",
        (name, None if metadata is None else json.dumps(dict(metadata)), store_id),
    )


def mark_deleted(tx: Transaction, store_id: str) -> int:
    """Hide the store from every reader; its rows and its files on disk follow in the background. Return the seq."""
    seq = next_seq(tx)
    tx.execute("UPDATE vector_stores SET deleted_at = ?, seq = ? WHERE id = ?", (int(time.time()), seq, store_id))
    tx.execute("DELETE FROM jobs WHERE store_id = ?", (store_id,))
    return seq


def deleted(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.execute("SELECT id FROM vector_stores WHERE deleted_at IS NOT NULL")]


def living(tx: Transaction) -> list[VectorStore]:
    return [_store(row) for row in tx.execute("SELECT * FROM vector_stores WHERE deleted_at IS NULL")]


def changed(tx: Transaction, after: int) -> list[VectorStore]:
    """Return the living stores that a write has touched since the one of seq `after`."""
    rows = tx.execute("SELECT * FROM vector_stores WHERE seq > ? AND deleted_at IS NULL ORDER BY seq", (after,))
    return [_store(row) for row in rows]


def get(tx: Transaction, store_id: str) -> VectorStore | None:
    """Return the living store of that id, whosever it is."""
    row = tx.execute("SELECT * FROM vector_stores WHERE id = ? AND deleted_at IS NULL", (store_id,)).fetchone()
    return _store(row) if row else None


def with_replaced(tx: Transaction) -> list[VectorStore]:
    """Return the living stores in which there are replaced versions to erase."""
    rows = tx.execute(
        "SELECT * FROM vector_stores WHERE deleted_at IS NULL AND id IN"
        " (SELECT store_id FROM documents WHERE dead_seq IS NOT NULL)"
    )
    return [_store(row) for row in rows]


def several(tx: Transaction, store_ids: Collection[str]) -> list[VectorStore]:
    """Return the living ones among these stores."""
    marks = ", ".join("?" * len(store_ids))
    rows = tx.execute(f"SELECT * FROM vector_stores WHERE id IN ({marks}) AND deleted_at IS NULL", tuple(store_ids))
    return [_store(row) for row in rows]


def count(tx: Transaction) -> int:
    return int(tx.execute("SELECT count(*) FROM vector_stores WHERE deleted_at IS NULL").fetchone()[0])


def with_tombstones(tx: Transaction) -> set[str]:
    return {row[0] for row in tx.execute("SELECT DISTINCT store_id FROM tombstones")}


def spaces(tx: Transaction) -> list[EmbeddingSpace]:
    """Return which models' vectors there are."""
    rows = tx.execute("SELECT DISTINCT model, dimension FROM vector_stores WHERE deleted_at IS NULL")
    return [EmbeddingSpace(*row) for row in rows]


def names_in(tx: Transaction, space: EmbeddingSpace) -> list[str]:
    """Return the names of the stores whose vectors are of that model, oldest first; of one without a name, its id."""
    rows = tx.execute(
        "SELECT name, id FROM vector_stores WHERE model = ? AND dimension = ? AND deleted_at IS NULL ORDER BY rowid",
        space,
    )
    return [row["name"] or row["id"] for row in rows]


def erase(tx: Transaction, store_id: str, limit: int) -> bool:
    """Erase up to `limit` documents of a deleted store; return whether the store itself is gone now.

    In steps, because the one SQLite writer is shared with every upload.
    """
    gone = tx.execute(
        "DELETE FROM documents WHERE id IN (SELECT id FROM documents WHERE store_id = ? LIMIT ?)"
        " RETURNING file_id, external_id",
        (store_id, limit),
    ).fetchall()
    for file_id, external_id in gone:
        if external_id is not None:  # A text brought its file with it; an attached file is its owner's.
            files.discard(tx, file_id)
    if tx.execute("SELECT 1 FROM documents WHERE store_id = ? LIMIT 1", (store_id,)).fetchone():
        return False
    tx.execute("DELETE FROM tombstones WHERE store_id = ?", (store_id,))
    tx.execute("DELETE FROM vector_stores WHERE id = ?", (store_id,))
    return True


def of(tx: Transaction, caller: Caller) -> list[VectorStore]:
    """Return every store that the caller may use."""
    rows = tx.execute("SELECT * FROM vector_stores WHERE tenant = ? AND deleted_at IS NULL", (caller.tenant,))
    return [_store(row) for row in rows if caller.may_use(row["id"])]


def counts(tx: Transaction, store_id: str, visible_seq: int) -> Counts:
    """Count documents by the state that a user sees: completed only once the index shows it.

    From the totals, and the few rows that a user sees otherwise: in a store of 1,000,000 documents 16 us, with 1,000
    not yet shown 100 us; counting them all takes a second.
    """
    row = tx.execute("SELECT * FROM store_totals WHERE store_id = ?", (store_id,)).fetchone()
    if row is None:
        return Counts()
    # INDEXED BY: without statistics SQLite may take any index that begins with the store.
    (hidden,) = tx.execute(
        "SELECT count(*) FROM documents INDEXED BY documents_completed"
        " WHERE store_id = ? AND seq > ? AND status = 'completed' AND dead_seq IS NULL",
        (store_id, visible_seq),
    ).fetchone()
    replaced = _counted(
        tx, "documents INDEXED BY documents_replaced WHERE store_id = ? AND dead_seq > ?", store_id, visible_seq
    )
    return Counts(
        row["in_progress"] + hidden + replaced.in_progress,
        row["completed"] - hidden + replaced.completed,
        row["failed"] + replaced.failed,
        row["cancelled"] + replaced.cancelled,
        row["usage_bytes"] + replaced.usage_bytes,
    )


def batch_counts(tx: Transaction, batch_id: str, visible_seq: int) -> Counts:
    """Count the documents of a batch, as `counts` does those of a store; one by one."""
    where = "documents WHERE batch_id = ? AND (dead_seq IS NULL OR dead_seq > ?)"
    return _counted(tx, where, batch_id, visible_seq)


def _counted(tx: Transaction, rows: str, scope: str, visible_seq: int) -> Counts:
    row = tx.execute(
        f"""SELECT coalesce(sum(status = 'in_progress' OR (status = 'completed' AND seq > ?)), 0),
                   coalesce(sum(status = 'completed' AND seq <= ?), 0), coalesce(sum(status = 'failed'), 0),
                   coalesce(sum(status = 'cancelled'), 0), coalesce(sum(usage_bytes), 0)
            FROM {rows}""",
        (visible_seq, visible_seq, scope, visible_seq),
    ).fetchone()
    return Counts(*row)


def _store(row: sqlite3.Row) -> VectorStore:
    return VectorStore(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        metadata=json.loads(row["metadata"]),
        model=row["model"],
        dimension=row["dimension"],
        chunk_tokens=row["chunk_tokens"],
        overlap_tokens=row["overlap_tokens"],
        created_at=row["created_at"],
        seq=row["seq"],
        slot=row["slot"],
        edition=row["edition"],
        is_indexed=bool(row["is_indexed"]),
    )
