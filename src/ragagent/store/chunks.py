"""Rows of chunks, and which of them a reader at a given seq may see.

A chunk is born at its document's seq and dies at the seq of what replaced it. A reader whose searcher shows "everything
up to S" sees the chunks with `seq <= S < dead_seq`: an update is seen whole, at the moment its manifest is published.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from ragagent.store import files, filters
from ragagent.store.database import Transaction
from ragagent.store.documents import bury
from ragagent.types import Evidence, Filter, Hit


@dataclass(frozen=True, slots=True)
class NewChunk:
    ordinal: int
    start: int
    end: int
    text: str
    vector: np.ndarray  # float32 (dimension,), unit length


@dataclass(frozen=True, slots=True)
class ChunkRow:
    id: int
    document_id: int
    seq: int
    text: str
    vector: np.ndarray


def evidence(tx: Transaction, store_id: str, hits: Sequence[Hit], visible_seq: int) -> list[Evidence]:
    """Return the hits' chunks in the order of the hits, without those that are deleted, not yet visible or replaced."""
    marks = ", ".join("?" * len(hits))
    # The plus forbids an index: of two ids or more SQLite would think that all chunks of the store are fewer.
    rows = {
        row["id"]: row
        for row in tx.execute(
            f"""SELECT c.id, c.ordinal, c.text, c.start, c."end", d.file_id, d.attributes, f.filename
                FROM chunks c JOIN documents d ON d.id = c.document_id JOIN files f ON f.id = d.file_id
                WHERE c.id IN ({marks}) AND +c.store_id = ?
                AND c.seq <= ? AND (c.dead_seq IS NULL OR c.dead_seq > ?)""",
            (*(hit.chunk_id for hit in hits), store_id, visible_seq, visible_seq),
        )
    }
    return [
        Evidence(
            chunk_id=hit.chunk_id,
            store_id=store_id,
            file_id=row["file_id"],
            filename=row["filename"],
            ordinal=row["ordinal"],
            text=row["text"],
            start=row["start"],
            end=row["end"],
            attributes=json.loads(row["attributes"]),
            score=hit.score,
            dense=hit.dense,
            lexical=hit.lexical,
        )
        for hit in hits
        if (row := rows.get(hit.chunk_id)) is not None
    ]


def visible(tx: Transaction, chunk_ids: Collection[int], visible_seq: int) -> set[int]:
    """Return those of the chunks that `evidence` would return."""
    marks = ", ".join("?" * len(chunk_ids))
    rows = tx.execute(
        f"SELECT id FROM chunks WHERE id IN ({marks}) AND seq <= ? AND (dead_seq IS NULL OR dead_seq > ?)",
        (*chunk_ids, visible_seq, visible_seq),
    )
    return {row[0] for row in rows}


def passing(tx: Transaction, chunk_ids: Collection[int], visible_seq: int, tree: Filter) -> set[int]:
    """Return those of them whose documents the filter lets through."""
    sql, parameters = filters.clause(tree)
    marks = ", ".join("?" * len(chunk_ids))
    rows = tx.execute(
        f"""SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document_id WHERE c.id IN ({marks}) AND ({sql})
            AND c.seq <= ? AND (c.dead_seq IS NULL OR c.dead_seq > ?)""",
        (*chunk_ids, *parameters, visible_seq, visible_seq),
    )
    return {row[0] for row in rows}


def of_document(tx: Transaction, document_id: int) -> list[tuple[int, int, str]]:
    """Return `(start, end, text)` of each chunk, in order."""
    rows = tx.execute('SELECT start, "end", text FROM chunks WHERE document_id = ? ORDER BY ordinal', (document_id,))
    return [(row[0], row[1], row[2]) for row in rows]


def complete(tx: Transaction, document_id: int, chunks: Sequence[NewChunk]) -> bool:
    """Store what the indexer made of a document and retire the version it replaces; False: it is gone meanwhile.

    Gone is also what a newer version has overtaken: its chunks must not come to stand beside that one's.
    """
    row = tx.execute(
        "SELECT d.store_id, d.external_id, d.seq, s.slot FROM documents d JOIN vector_stores s ON s.id = d.store_id"
        " WHERE d.id = ? AND d.status = 'in_progress' AND d.dead_seq IS NULL",
        (document_id,),
    ).fetchone()
    if row is None:
        return False
    store_id, external_id, seq, slot = row
    for c in chunks:
        added = tx.execute(
            'INSERT INTO chunks (store_id, document_id, ordinal, start, "end", text, seq) VALUES (?, ?, ?, ?, ?, ?, ?)',
            (store_id, document_id, c.ordinal, c.start, c.end, c.text, seq),
        )
        put_vector(tx, slot, added.lastrowid, c.vector)
    usage = sum(len(chunk.text.encode()) + chunk.vector.nbytes for chunk in chunks)
    tx.execute(
        "UPDATE documents SET status = 'completed', usage_bytes = ?, settled_at = ? WHERE id = ?",
        (usage, int(time.time()), document_id),
    )
    if external_id is not None:
        _retire_older(tx, store_id, external_id, seq)
    _finish_job(tx, document_id)
    return True


def fail(tx: Transaction, document_id: int, code: str, message: str) -> None:
    tx.execute(
        "UPDATE documents SET status = 'failed', error_code = ?, error_message = ?, settled_at = ?,"
        " attempts = coalesce((SELECT attempts FROM jobs WHERE document_id = documents.id), 0)"
        " WHERE id = ? AND status = 'in_progress'",
        (code, message, int(time.time()), document_id),
    )
    _finish_job(tx, document_id)


def packed(vector: np.ndarray) -> bytes:
    """Return a vector as every table keeps it: little-endian float32."""
    return bytes(vector.astype("<f4").tobytes())


def unpacked(blob: bytes) -> np.ndarray:
    return np.frombuffer(blob, dtype="<f4")


def put_vector(tx: Transaction, slot: int, chunk_id: int | None, vector: np.ndarray) -> None:
    tx.execute(f"INSERT INTO vectors_{slot:d} (chunk_id, vector) VALUES (?, ?)", (chunk_id, packed(vector)))


def put_vectors(tx: Transaction, slot: int, chunk_ids: Sequence[int], vectors: np.ndarray) -> None:
    """Store the vectors of chunks that may have been erased meanwhile."""
    tx.executemany(
        f"INSERT OR REPLACE INTO vectors_{slot:d} (chunk_id, vector) SELECT id, ? FROM chunks WHERE id = ?",
        ((packed(row), chunk_id) for chunk_id, row in zip(chunk_ids, vectors, strict=True)),
    )


def born(
    tx: Transaction, store_id: str, slot: int, after: int, up_to: int, *, beyond: tuple[int, int], limit: int
) -> list[ChunkRow]:
    """Return chunks with `after < seq <= up_to` that still live at `up_to`, by (seq, id), those after `beyond`.

    Their vectors are those of `slot`. In the order of the index that is walked, so that all slices together read each
    row once; by id alone, each slice would sort all that is left.
    """
    seq, chunk_id = max(beyond, (after + 1, 0))
    rows = tx.execute(
        "SELECT id, document_id, seq, text, vector FROM chunks INDEXED BY chunks_by_seq"
        f" CROSS JOIN vectors_{slot:d} ON chunk_id = id"
        " WHERE store_id = ? AND seq >= ? AND seq <= ? AND (seq > ? OR id > ?) AND (dead_seq IS NULL OR dead_seq > ?)"
        " ORDER BY seq, id LIMIT ?",
        (store_id, seq, up_to, seq, chunk_id, up_to, limit),
    )
    return [ChunkRow(r["id"], r["document_id"], r["seq"], r["text"], unpacked(r["vector"])) for r in rows]


def seq_after(tx: Transaction, store_id: str, after: int, up_to: int, count: int) -> int:
    """Return the seq at which `count` chunks more than at `after` are shown; `up_to` when there are not so many."""
    row = tx.execute(
        "SELECT seq FROM chunks WHERE store_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT 1 OFFSET ?",
        (store_id, after, up_to, count - 1),
    ).fetchone()
    return up_to if row is None else int(row[0])


def ids(tx: Transaction, store_id: str) -> list[int]:
    """Return the ids of all of the store's chunks that stand in the database, replaced ones included, ascending."""
    rows = tx.execute("SELECT id FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? ORDER BY id", (store_id,))
    return [row[0] for row in rows]


def count(tx: Transaction, store_id: str, beyond: int = 0) -> int:
    """Return how many chunks the store has, of those with ids after `beyond`."""
    row = tx.execute(
        "SELECT count(*) FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? AND id > ?", (store_id, beyond)
    ).fetchone()
    return int(row[0])


def sample(tx: Transaction, store_id: str, count: int, chance: Random) -> list[tuple[int, str]]:
    """Return id and text of up to `count` living chunks, taken from all over the store."""
    row = tx.execute("SELECT min(id), max(id) FROM chunks WHERE store_id = ?", (store_id,)).fetchone()
    found: dict[int, str] = {}
    for _ in range(count if row[0] is not None else 0):
        at = tx.execute(
            "SELECT id, text FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? AND id >= ?"
            " AND dead_seq IS NULL ORDER BY id LIMIT 1",
            (store_id, chance.randint(row[0], row[1])),
        ).fetchone()
        if at is not None:
            found[at["id"]] = at["text"]
    return list(found.items())


def vector(tx: Transaction, slot: int, chunk_id: int) -> np.ndarray | None:
    row = tx.execute(f"SELECT vector FROM vectors_{slot:d} WHERE chunk_id = ?", (chunk_id,)).fetchone()
    return None if row is None else unpacked(row[0])


def documents_named(tx: Transaction, chunk_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return by what names the document of each chunk is known: its file id, and its external id if it has one."""
    rows = tx.execute(
        "SELECT c.id, d.file_id, d.external_id FROM chunks c JOIN documents d ON d.id = c.document_id"
        f" WHERE c.id IN ({', '.join('?' * len(chunk_ids))})",
        tuple(chunk_ids),
    )
    return {row["id"]: tuple(filter(None, (row["file_id"], row["external_id"]))) for row in rows}


def died(tx: Transaction, store_id: str, after: int, up_to: int) -> list[int]:
    """Return the chunks that were replaced in `after < dead_seq <= up_to`."""
    rows = tx.execute(
        "SELECT id FROM chunks WHERE store_id = ? AND dead_seq > ? AND dead_seq <= ?", (store_id, after, up_to)
    )
    return [row[0] for row in rows]


def buried(tx: Transaction, store_id: str, up_to: int) -> list[int]:
    rows = tx.execute("SELECT chunk_id FROM tombstones WHERE store_id = ? AND seq <= ?", (store_id, up_to))
    return [row[0] for row in rows]


def clear_tombstones(tx: Transaction, chunk_ids: Sequence[int]) -> None:
    tx.executemany("DELETE FROM tombstones WHERE chunk_id = ?", ((chunk_id,) for chunk_id in chunk_ids))


def purge_replaced(tx: Transaction, store_id: str, up_to: int, limit: int) -> int:
    """Erase up to `limit` versions that were replaced at or before `up_to`, with the files that carried them.

    Return how many. In steps, because the one SQLite writer is shared with every upload.
    """
    rows = tx.execute(
        "SELECT id, file_id FROM documents WHERE store_id = ? AND dead_seq <= ? LIMIT ?", (store_id, up_to, limit)
    ).fetchall()
    for document_id, file_id in rows:
        bury(tx, "document_id = ?", (document_id,), up_to)
        tx.execute("DELETE FROM documents WHERE id = ?", (document_id,))
        files.discard(tx, file_id)
    return len(rows)


def _retire_older(tx: Transaction, store_id: str, external_id: str, seq: int) -> None:
    """Everything of this external id that is older dies at `seq`: completed, failed, or overtaken in the queue."""
    older = "SELECT id FROM documents WHERE store_id = ? AND external_id = ? AND seq < ? AND dead_seq IS NULL"
    tx.execute(f"UPDATE chunks SET dead_seq = ? WHERE document_id IN ({older})", (seq, store_id, external_id, seq))
    tx.execute(f"DELETE FROM jobs WHERE document_id IN ({older})", (store_id, external_id, seq))
    tx.execute(f"UPDATE documents SET dead_seq = ? WHERE id IN ({older})", (seq, store_id, external_id, seq))


def _finish_job(tx: Transaction, document_id: int) -> None:
    tx.execute("DELETE FROM jobs WHERE document_id = ?", (document_id,))
