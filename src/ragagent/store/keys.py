"""API keys: `rag_<id>_<secret>`, of which only an HMAC of the secret is stored.

A fast MAC is right here: the secret is 256 random bits, so there is nothing to guess, and a slow hash on every request
would be a way to exhaust the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragagent.errors import Damaged
from ragagent.store.database import Transaction
from ragagent.types import Allowance

PREFIX = "rag_"
PEPPER_BYTES = 32
GENERAL = Allowance()  # what the configuration says for every key


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    tenant: str
    name: str
    mac: bytes
    stores: tuple[str, ...] | None
    created_at: int
    revoked_at: int | None
    allowance: Allowance


def pepper(path: Path) -> bytes:
    """Return the MAC's key, made on first use. It lives beside the database: a copy of either alone is worthless.

    Raises Damaged when the file does not hold one.
    """
    if not path.exists():
        _make_pepper(path)
    found = path.read_bytes()
    if len(found) != PEPPER_BYTES:
        raise Damaged(
            f"The key pepper file has {len(found)} bytes, not {PEPPER_BYTES}; restore it, or remove it and create all "
            "keys anew."
        )
    return found


def _make_pepper(path: Path) -> None:
    """Bring the file into being whole: whoever sees it, at whatever moment we are killed, reads all of it."""
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(PEPPER_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # Another process was first: its pepper counts.
        os.link(name, path)
    os.unlink(name)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def add(
    tx: Transaction,
    key: bytes,
    *,
    tenant: str,
    name: str,
    stores: Sequence[str] | None,
    allowance: Allowance = GENERAL,
) -> tuple[KeyRow, str]:
    """Store a new key; return its row and the token, which is shown this once and never again."""
    secret = secrets.token_urlsafe(32)
    row = KeyRow(
        id=secrets.token_hex(6),
        tenant=tenant,
        name=name,
        mac=_mac(key, secret),
        stores=None if stores is None else tuple(stores),
        created_at=int(time.time()),
        revoked_at=None,
        allowance=allowance,
    )
    bound = None if stores is None else json.dumps(list(stores))
    tx.execute(
        "INSERT INTO api_keys (id, tenant, name, mac, stores, created_at, requests_per_minute, tokens_per_minute, "
        "concurrent_answers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, tenant, name, row.mac, bound, row.created_at, *dataclasses.astuple(allowance)),
    )
    return row, f"{PREFIX}{row.id}_{secret}"


def verify(tx: Transaction, key: bytes, token: str) -> KeyRow | None:
    """Return the key's row if the token is genuine and not revoked, else None, whatever the token looks like."""
    if not (token.startswith(PREFIX) and token.isascii()):  # Ours are; and some other text has no bytes at all.
        return None
    key_id, _, secret = token.removeprefix(PREFIX).partition("_")
    found = tx.execute("SELECT * FROM api_keys WHERE id = ? AND revoked_at IS NULL", (key_id,)).fetchone()
    if found is None or not hmac.compare_digest(found["mac"], _mac(key, secret)):
        return None
    return _key(found)


def active(tx: Transaction) -> int:
    return int(tx.execute("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").fetchone()[0])


def listing(tx: Transaction) -> list[KeyRow]:
    return [_key(row) for row in tx.execute("SELECT * FROM api_keys ORDER BY created_at, rowid")]


def revoke(tx: Transaction, key_id: str) -> bool:
    """Revoke a key; False: there is none of that id that is still active."""
    now = int(time.time())
    return (
        tx.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id)).rowcount > 0
    )


def limit(tx: Transaction, key_id: str, allowance: Allowance) -> bool:
    """Set what an active key may ask for; False: there is none of that id."""
    return (
        tx.execute(
            "UPDATE api_keys SET requests_per_minute = ?, tokens_per_minute = ?, concurrent_answers = ? "
            "WHERE id = ? AND revoked_at IS NULL",
            (*dataclasses.astuple(allowance), key_id),
        ).rowcount
        > 0
    )


def _mac(key: bytes, secret: str) -> bytes:
    return hmac.digest(key, secret.encode(), hashlib.sha256)


def _key(row: sqlite3.Row) -> KeyRow:
    stores = None if row["stores"] is None else tuple(json.loads(row["stores"]))
    allowance = Allowance(row["requests_per_minute"], row["tokens_per_minute"], row["concurrent_answers"])
    return KeyRow(
        row["id"], row["tenant"], row["name"], row["mac"], stores, row["created_at"], row["revoked_at"], allowance
    )
