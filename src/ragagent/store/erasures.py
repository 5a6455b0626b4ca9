"""What caches must forget: which erasures and purges there were.

Triggers write the erasures (schema/006.sql), in the transaction that erases.
"""

from __future__ import annotations

from typing import NamedTuple

from ragagent.store.database import Transaction
from ragagent.types import Erasure


class Progress(NamedTuple):
    """The numbers of the last erasure and of the last purge."""

    erased: int
    purged: int


class Purge(NamedTuple):
    number: int
    prefix: str


def progress(tx: Transaction) -> Progress:
    row = tx.execute(
        "SELECT (SELECT value FROM counters WHERE name = 'erasure'), (SELECT coalesce(max(number), 0) FROM purges)"
    ).fetchone()
    return Progress(*row)


def after(tx: Transaction, number: int) -> list[Erasure]:
    """Return the erasures after that number, oldest first: of each store one, which says all."""
    rows = tx.execute(
        "SELECT number, tenant, store_id, removed, replaced FROM erasures WHERE number > ? ORDER BY number", (number,)
    )
    return [Erasure(*row) for row in rows]


def identity(tx: Transaction) -> int:
    """Return the number that tells this database from others that share a Redis with it."""
    return int(tx.execute("SELECT value FROM counters WHERE name = 'identity'").fetchone()[0])


def add_purge(tx: Transaction, prefix: str) -> int:
    """Note a purge of the keys that begin with `prefix`; return its number."""
    row = tx.execute("INSERT INTO purges (prefix) VALUES (?) RETURNING number", (prefix,)).fetchone()
    return int(row[0])


def purges_after(tx: Transaction, number: int) -> list[Purge]:
    """Return the purges after that number, oldest first. The oldest of all may be gone: see the numbers."""
    rows = tx.execute("SELECT number, prefix FROM purges WHERE number > ? ORDER BY number", (number,))
    return [Purge(*row) for row in rows]
