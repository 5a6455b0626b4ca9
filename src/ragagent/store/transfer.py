"""Rows on their way from one database to another: all of a store, one after the other, and put in under their own ids.

A file and a store keep their ids where these are free, so that whoever knows them by these goes on finding them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragagent.errors import Conflict
from ragagent.store import chunks, documents, files, stores
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Transaction
from ragagent.types import Attributes, Caller, VectorStore

# Of one external id the version that counts: the newest, unless it could not be read and an older one stands.
_STANDING = """
    SELECT x.id FROM documents x
    WHERE x.store_id = d.store_id AND x.external_id = d.external_id AND x.dead_seq IS NULL AND x.status != 'cancelled'
    ORDER BY x.status = 'failed', x.seq DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Moved:
    """A document without its chunks. `file_id` is None where it never had one."""

    file_id: str | None
    external_id: str | None
    filename: str
    purpose: str
    attributes: Attributes
    chunk_tokens: int
    overlap_tokens: int
    created_at: int
    data: bytes


def standing(tx: Transaction, store: VectorStore) -> Iterator[tuple[int, str, int, Moved]]:
    """Yield `(document id, status, number of chunks, document)` of what the store holds, in the order it came."""
    rows = tx.execute(
        f"""SELECT d.id, d.status, d.file_id, d.external_id, d.attributes, d.chunk_tokens, d.overlap_tokens,
                   d.created_at, f.filename, f.purpose, (SELECT count(*) FROM chunks c WHERE c.document_id = d.id) AS n
            FROM documents d JOIN files f ON f.id = d.file_id
            WHERE d.store_id = ? AND d.dead_seq IS NULL AND d.status != 'cancelled'
              AND (d.external_id IS NULL OR d.id = ({_STANDING})) ORDER BY d.id""",
        (store.id,),
    )
    for row in rows:
        moved = Moved(
            file_id=row["file_id"],
            external_id=row["external_id"],
            filename=row["filename"],
            purpose=row["purpose"],
            attributes=json.loads(row["attributes"]),
            chunk_tokens=row["chunk_tokens"],
            overlap_tokens=row["overlap_tokens"],
            created_at=row["created_at"],
            data=files.content(tx, row["file_id"]),
        )
        yield row["id"], row["status"], row["n"], moved


def pieces(tx: Transaction, document_id: int, slot: int) -> Iterator[NewChunk]:
    """Yield the document's chunks with the vectors of `slot`, in order."""
    rows = tx.execute(
        f'SELECT ordinal, start, "end", text, vector FROM chunks JOIN vectors_{slot:d} ON chunk_id = id'
        " WHERE document_id = ? ORDER BY id",
        (document_id,),
    )
    for row in rows:
        yield NewChunk(row["ordinal"], row["start"], row["end"], row["text"], chunks.unpacked(row["vector"]))


def add_store(tx: Transaction, store_id: str | None, created_at: int, **fields: object) -> VectorStore:
    """Add a store (`fields` are those of `stores.add`), under the id if nobody has had it here."""
    is_free = tx.execute("SELECT 1 FROM vector_stores WHERE id = ?", (store_id,)).fetchone() is None
    name = store_id if is_free else None
    return stores.add(tx, store_id=name, created_at=created_at, **fields)  # type: ignore[arg-type]


def put(tx: Transaction, store: VectorStore, new: Moved, new_chunks: Sequence[NewChunk] | None) -> bool:
    """Put a document into the store, finished with its chunks, or queued without; False: it is there already.

    A newer version of its external id replaces the one that is there, as an upload would. Raises Conflict when its
    file's id stands for another file here.
    """
    sha256 = hashlib.sha256(new.data).hexdigest()
    if new.external_id is None:
        if new.file_id is not None and documents.find(tx, store.id, new.file_id):
            return False
    elif _is_newest(tx, store, new, sha256):
        return False
    added = documents.add(
        tx,
        store_id=store.id,
        file_id=_file(tx, store, new, sha256),
        external_id=new.external_id,
        batch_id=None,
        attributes=new.attributes,
        chunk_tokens=new.chunk_tokens,
        overlap_tokens=new.overlap_tokens,
        traceparent=None,
    )
    tx.execute("UPDATE documents SET created_at = ? WHERE id = ?", (new.created_at, added.id))
    if new_chunks is not None:
        chunks.complete(tx, added.id, new_chunks)
    return True


def _is_newest(tx: Transaction, store: VectorStore, new: Moved, sha256: str) -> bool:
    assert new.external_id is not None
    for newest in documents.versions(tx, store.id, new.external_id)[:1]:
        is_there = documents.is_there(tx, newest, sha256, new.filename)
        return is_there and documents.same_attributes(newest.attributes, new.attributes)
    return False


def _file(tx: Transaction, store: VectorStore, new: Moved, sha256: str) -> str:
    """Return the id of the document's file: its own, made if there is none; another where a text's own is in use."""
    row = tx.execute("SELECT tenant, sha256 FROM files WHERE id = ?", (new.file_id,)).fetchone()
    if row is not None and new.external_id is None:
        if (row["tenant"], row["sha256"]) != (store.tenant, sha256):
            raise Conflict(
                f"field 'file_id' is '{new.file_id}', and that stands for another file here", param="file_id"
            )
        return str(new.file_id)
    caller, file_id = Caller(store.tenant), new.file_id if row is None else None
    added = files.add(tx, caller, filename=new.filename, purpose=new.purpose, data=new.data, file_id=file_id)
    tx.execute("UPDATE files SET created_at = ? WHERE id = ?", (new.created_at, added.id))
    return added.id
