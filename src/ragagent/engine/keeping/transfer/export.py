"""An export: stores, documents and chunks as JSON lines, of one moment, while the server goes on.

All of it is read in one transaction, a row at a time, so memory holds one document. What it leaves out: API keys, files
that stand in no store, versions that were replaced, and batches that were cancelled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, Literal

from ragagent import __version__
from ragagent.config import Data
from ragagent.engine.keeping.transfer import lines
from ragagent.errors import NotFound
from ragagent.store import stores, transfer
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database, Transaction
from ragagent.types import VectorStore

Vectors = Literal["base64", "list", "none"]


def export(data: Data, out: IO[bytes], names: Sequence[str], vectors: Vectors) -> Mapping[str, int]:
    """Write the stores of these names or ids (none: all) and return how many lines of each kind that were.

    Raises NotFound, Damaged, OSError of `out`.
    """
    if not data.database.is_file():
        raise NotFound(f"There is no database in data directory '{data.dir}'.")
    database = Database.open(data.database)
    counts: Counter[str] = Counter(stores=0, documents=0, chunks=0)
    try:
        with database.read() as tx:
            chosen = _chosen(stores.living(tx), names)
            head = {"type": "export", "format": lines.FORMAT, "ragagent": __version__, "created_at": int(time.time())}
            out.write(lines.encode(head))
            for store in chosen:
                _store(tx, store, out, vectors, counts)
    finally:
        database.close()
    out.write(lines.encode({"type": "end", **counts}))
    return counts


def _chosen(living: Sequence[VectorStore], names: Sequence[str]) -> list[VectorStore]:
    for name in names:
        if not any(name in (store.id, store.name) for store in living):
            raise NotFound(f"There is no store with the name or id '{name}'.")
    return [store for store in living if not names or store.id in names or store.name in names]


def _store(tx: Transaction, store: VectorStore, out: IO[bytes], vectors: Vectors, counts: Counter[str]) -> None:
    out.write(
        lines.encode(
            {
                "type": "store",
                "id": store.id,
                "tenant": store.tenant,
                "name": store.name,
                "metadata": dict(store.metadata),
                "model": store.model,
                "dimension": store.dimension,
                "chunk_tokens": store.chunk_tokens,
                "overlap_tokens": store.overlap_tokens,
                "created_at": store.created_at,
            }
        )
    )
    counts["stores"] += 1
    for document_id, status, count, moved in transfer.standing(tx, store):
        out.write(
            lines.encode(
                {
                    "type": "document",
                    "store": store.id,
                    "file_id": moved.file_id,
                    "external_id": moved.external_id,
                    "filename": moved.filename,
                    "purpose": moved.purpose,
                    "attributes": dict(moved.attributes),
                    "chunk_tokens": moved.chunk_tokens,
                    "overlap_tokens": moved.overlap_tokens,
                    "created_at": moved.created_at,
                    "status": status,
                    "chunks": count,
                    **lines.encoded_data(moved.data),
                }
            )
        )
        counts["documents"] += 1
        for piece in transfer.pieces(tx, document_id, store.slot):
            out.write(lines.encode(_chunk(piece, vectors)))
            counts["chunks"] += 1


def _chunk(piece: NewChunk, vectors: Vectors) -> Mapping[str, object]:
    fields = {"type": "chunk", "ordinal": piece.ordinal, "start": piece.start, "end": piece.end, "text": piece.text}
    if vectors == "none":
        return fields
    return {**fields, "vector": lines.encoded_vector(piece.vector, as_list=vectors == "list")}
