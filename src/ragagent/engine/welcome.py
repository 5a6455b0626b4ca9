"""The first store of an empty server: the files that `data.welcome` names, so that the first question has an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragagent.engine.catalog import Chunking
from ragagent.providers.base import Embedder
from ragagent.store import documents, files, stores
from ragagent.store.database import Transaction, last_seq
from ragagent.types import Caller

STORE = "welcome"


def load(tx: Transaction, paths: Sequence[Path], embedder: Embedder, chunking: Chunking) -> int:
    """Put the files into a new store, if there has never been a store; return how many there are in it."""
    found = [path for path in paths if path.is_file()]
    if not found or last_seq(tx):
        return 0
    store = stores.add(
        tx,
        tenant=Caller().tenant,
        name=STORE,
        metadata={"about": "Loaded from data.welcome at the first start."},
        model=embedder.model,
        dimension=embedder.dimension,
        chunk_tokens=chunking.max_tokens,
        overlap_tokens=chunking.overlap_tokens,
    )
    for path in found:
        file = files.add(tx, Caller(), filename=path.name, purpose="assistants", data=path.read_bytes())
        documents.add(
            tx,
            store_id=store.id,
            file_id=file.id,
            external_id=None,
            batch_id=None,
            attributes={},
            chunk_tokens=chunking.max_tokens,
            overlap_tokens=chunking.overlap_tokens,
            traceparent=None,
        )
    return len(found)
