"""A real database in a file, and short ways to put rows into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ragagent.store import chunks, documents, files, stores
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database, Transaction
from ragagent.types import Attributes, Caller, Document, File, VectorStore

DIMENSION = 4
CALLER = Caller()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


def new_store(tx: Transaction, name: str = "docs", tenant: str = "default", **metadata: str) -> VectorStore:
    return stores.add(
        tx,
        tenant=tenant,
        name=name,
        metadata=metadata,
        model="model-a",
        dimension=DIMENSION,
        chunk_tokens=400,
        overlap_tokens=0,
    )


def new_file(tx: Transaction, data: bytes = b"text", caller: Caller = CALLER, **fields: str) -> File:
    return files.add(tx, caller, **{"filename": "a.txt", "purpose": "assistants", **fields}, data=data)


def new_document(
    tx: Transaction,
    store: VectorStore,
    external_id: str | None = None,
    *,
    file: File | None = None,
    batch_id: str | None = None,
    attributes: Attributes | None = None,
    data: bytes = b"text",
) -> Document:
    return documents.add(
        tx,
        store_id=store.id,
        file_id=(file or new_file(tx, data)).id,
        external_id=external_id,
        batch_id=batch_id,
        attributes=attributes or {},
        chunk_tokens=400,
        overlap_tokens=0,
        traceparent=None,
    )


def new_chunks(*texts: str) -> list[NewChunk]:
    vector = np.eye(1, DIMENSION, dtype=np.float32)[0]
    return [NewChunk(n, 10 * n, 10 * n + len(text), text, vector) for n, text in enumerate(texts)]


def ingested(tx: Transaction, store: VectorStore, *texts: str, **fields: Any) -> Document:
    """Add a document and complete it at once, as the indexer would."""
    row = new_document(tx, store, **fields)
    assert chunks.complete(tx, row.id, new_chunks(*texts))
    found = documents.find(tx, store.id, row.file_id)
    assert found is not None
    return found


class Totals(NamedTuple):
    """What triggers keep of a store: its documents in whatever state, without replaced versions."""

    documents: int = 0
    chunks: int = 0
    usage_bytes: int = 0


def totals(tx: Transaction, store_id: str) -> Totals:
    row = tx.execute(
        "SELECT in_progress + completed + failed + cancelled, chunk_count, usage_bytes FROM store_totals"
        " WHERE store_id = ?",
        (store_id,),
    ).fetchone()
    return Totals(*row) if row else Totals()


def column(tx: Transaction, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
    return [row[0] for row in tx.execute(sql, parameters)]
