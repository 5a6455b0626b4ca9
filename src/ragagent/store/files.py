"""Rows of uploaded files and their bytes."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time

from ragagent.errors import NotFound
from ragagent.store.database import Transaction
from ragagent.store.pages import keyset
from ragagent.types import Caller, File, Page

RETRY_SECONDS = 600  # how long a client may go on retrying one upload


def add(
    tx: Transaction, caller: Caller, *, filename: str, purpose: str, data: bytes, file_id: str | None = None
) -> File:
    row = File(
        id=file_id or f"file-{secrets.token_hex(12)}",
        tenant=caller.tenant,
        filename=filename,
        purpose=purpose,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        created_at=int(time.time()),
    )
    tx.execute(
        "INSERT INTO files (id, tenant, filename, purpose, bytes, sha256, key_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.tenant, filename, purpose, row.bytes, row.sha256, caller.key_id, row.created_at),
    )
    tx.execute("INSERT INTO file_contents (file_id, data) VALUES (?, ?)", (row.id, data))
    return row


def find(tx: Transaction, caller: Caller, file_id: str) -> File | None:
    where, parameters = _visible(caller)
    row = tx.execute(f"SELECT * FROM files WHERE id = ? AND {where}", (file_id, *parameters)).fetchone()
    return _file(row) if row else None


def find_retried(tx: Transaction, caller: Caller, *, filename: str, purpose: str, data: bytes) -> File | None:
    """Return the file that an earlier try of the same upload stored.

    The openai client retries a POST whose answer was lost, and sends no idempotency key with it.
    """
    row = tx.execute(
        "SELECT * FROM files WHERE tenant = ? AND sha256 = ? AND filename = ? AND purpose = ? AND key_id IS ?"
        " AND created_at >= ? ORDER BY rowid DESC LIMIT 1",
        (
            caller.tenant,
            hashlib.sha256(data).hexdigest(),
            filename,
            purpose,
            caller.key_id,
            int(time.time()) - RETRY_SECONDS,
        ),
    ).fetchone()
    return _file(row) if row else None


def listing(tx: Transaction, caller: Caller, purpose: str | None, page: Page) -> list[File]:
    where, parameters = _visible(caller)
    if purpose:
        where, parameters = f"{where} AND purpose = ?", [*parameters, purpose]
    return [_file(row) for row in keyset(tx, "files", where, parameters, page)]


def content(tx: Transaction, file_id: str) -> bytes:
    """Return the file's bytes. Raises NotFound."""
    row = tx.execute("SELECT data FROM file_contents WHERE file_id = ?", (file_id,)).fetchone()
    if row is None:
        raise NotFound(f"File '{file_id}' does not exist.", param="file_id")
    return bytes(row[0])


def discard(tx: Transaction, file_id: str) -> None:
    """Erase a file that a text brought with it, unless a document is still made from it.

    It can have been attached to another store by its id.
    """
    tx.execute(
        "DELETE FROM files WHERE id = ? AND NOT EXISTS (SELECT 1 FROM documents WHERE file_id = files.id)", (file_id,)
    )


def _visible(caller: Caller) -> tuple[str, list[object]]:
    """Return the condition under which the caller may see a row of `files`.

    A key that is bound to stores sees what it uploaded itself and what stands in its stores.
    """
    if caller.stores is None:
        return "tenant = ?", [caller.tenant]
    marks = ", ".join("?" * len(caller.stores))
    return (
        "tenant = ? AND (key_id IS ? OR id IN (SELECT file_id FROM documents WHERE store_id IN (" + marks + ")))",
        [caller.tenant, caller.key_id, *sorted(caller.stores)],
    )


def _file(row: sqlite3.Row) -> File:
    return File(**{key: row[key] for key in File.__slots__})
