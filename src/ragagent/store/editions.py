"""Rows of editions: the indexes that a store has besides the one that is searched.

What is searched stands in the store's own row (model, dimension, slot, edition), so that one UPDATE changes it. The
commands write what they want here, and the indexer, which alone knows how far an index is, does it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ragagent.errors import Conflict
from ragagent.store.database import Transaction
from ragagent.types import VectorStore, index_name

State = Literal["searched", "rebuild", "next", "kept", "dropped", "spent"]


@dataclass(frozen=True, slots=True)
class Edition:
    """One index of a store. `searched` is never a row: it is what the store's own row says."""

    store_id: str
    number: int
    state: State
    slot: int
    model: str
    dimension: int
    cursor: int = 0
    budget: float = 1.0
    is_wanted: bool = False
    trouble: str | None = None
    created_at: int = 0

    @property
    def index(self) -> str:
        """The name of its directory."""
        return index_name(self.store_id, self.number)

    @property
    def is_beside(self) -> bool:
        """Whether it is of the other slot, and its vectors are made by a cursor."""
        return self.state in ("next", "kept")


def searched(store: VectorStore) -> Edition:
    return Edition(store.id, store.edition, "searched", store.slot, store.model, store.dimension)


def listing(tx: Transaction, store_id: str | None = None) -> list[Edition]:
    """Return the editions besides the searched ones, of every store or of one, in the order of their making."""
    where, parameters = ("", ()) if store_id is None else ("WHERE store_id = ?", (store_id,))
    return [_edition(row) for row in tx.execute(f"SELECT * FROM editions {where} ORDER BY number", parameters)]


def find(tx: Transaction, store_id: str, *states: State) -> Edition | None:
    """Return the store's newest edition in one of the states."""
    return next((row for row in reversed(listing(tx, store_id)) if row.state in states), None)


# What a command, or a reader that met damage, may ask for


def rebuild(tx: Transaction, store: VectorStore) -> Edition:
    """Have the searched index made anew beside it; one that is under way already is the answer."""
    under_way = find(tx, store.id, "rebuild")
    return under_way or _add(tx, store.id, "rebuild", store.slot, store.model, store.dimension)


def reembed(tx: Transaction, store: VectorStore, model: str, dimension: int, budget: float) -> Edition:
    """Begin the store's next edition, of another model. Raises Conflict; what was kept to go back to is given up."""
    if (store.model, store.dimension) == (model, dimension):
        raise Conflict(f"Vector store '{store.name or store.id}' is of '{model}' ({dimension}) already.")
    standing = find(tx, store.id, "next", "kept")
    if standing is not None and standing.state == "next":
        raise Conflict(
            f"Vector store '{store.name or store.id}' is being moved to '{standing.model}' ({standing.dimension}); "
            "cut over to it, or abandon it first."
        )
    if standing is not None and (standing.model, standing.dimension) == (model, dimension):
        raise Conflict(
            f"Vector store '{store.name or store.id}' keeps its vectors of '{model}' ({dimension}): roll back to them, "
            "or retire them first."
        )
    if standing is not None:
        drop(tx, standing)
    return _add(tx, store.id, "next", 1 - store.slot, model, dimension, budget)


def want(tx: Transaction, edition: Edition) -> None:
    """Ask that it be searched, as soon as it has caught up."""
    tx.execute(
        "UPDATE editions SET is_wanted = 1 WHERE store_id = ? AND number = ?", (edition.store_id, edition.number)
    )


def drop(tx: Transaction, edition: Edition) -> None:
    """Give up an edition of the other slot; its vectors and its directory follow in the background."""
    tx.execute(
        "UPDATE editions SET state = 'dropped', is_wanted = 0, cursor = 0 WHERE store_id = ? AND number = ?",
        (edition.store_id, edition.number),
    )


# What the indexer does


def renew(tx: Transaction, edition: Edition) -> None:
    """Give an edition that nobody searches, and whose files are damaged, a new number: it is made from the start."""
    number = _next_number(tx)
    tx.execute(
        "UPDATE editions SET number = ? WHERE store_id = ? AND number = ?", (number, edition.store_id, edition.number)
    )
    tx.execute(
        "INSERT INTO editions (store_id, number, state, slot, model, dimension, created_at)"
        " SELECT store_id, ?, 'spent', slot, model, dimension, created_at FROM editions"
        " WHERE store_id = ? AND number = ?",
        (edition.number, edition.store_id, number),
    )


def mark_indexed(tx: Transaction, store_ids: Sequence[str]) -> None:
    tx.executemany("UPDATE vector_stores SET is_indexed = 1 WHERE id = ?", ((store_id,) for store_id in store_ids))


def order_return(tx: Transaction, store_id: str, generation: int) -> None:
    """Ask that the searched index go back to a generation that was kept."""
    tx.execute(
        "INSERT OR REPLACE INTO returns (store_id, generation, trouble) VALUES (?, ?, NULL)", (store_id, generation)
    )


def returns(tx: Transaction) -> dict[str, int]:
    """Return the generation that each store is to go back to, by store."""
    return {row[0]: row[1] for row in tx.execute("SELECT store_id, generation FROM returns WHERE trouble IS NULL")}


def end_return(tx: Transaction, store_id: str, trouble: str | None = None) -> None:
    """Note that it was done, or why it was not."""
    if trouble is None:
        tx.execute("DELETE FROM returns WHERE store_id = ?", (store_id,))
    else:
        tx.execute("UPDATE returns SET trouble = ? WHERE store_id = ?", (trouble, store_id))


def return_trouble(tx: Transaction, store_id: str) -> tuple[bool, str | None]:
    """Return whether a return is still ordered, and why it was not done."""
    row = tx.execute("SELECT trouble FROM returns WHERE store_id = ?", (store_id,)).fetchone()
    return row is not None, None if row is None else row[0]


def note_trouble(tx: Transaction, edition: Edition, trouble: str | None) -> None:
    tx.execute(
        "UPDATE editions SET trouble = ? WHERE store_id = ? AND number = ?",
        (trouble, edition.store_id, edition.number),
    )


def dropped(tx: Transaction) -> list[Edition]:
    return [row for row in listing(tx) if row.state == "dropped"]


def spent(tx: Transaction) -> list[Edition]:
    return [row for row in listing(tx) if row.state == "spent"]


def forget(tx: Transaction, edition: Edition) -> None:
    """Erase the row of an edition whose directory is gone."""
    tx.execute(
        "DELETE FROM editions WHERE store_id = ? AND number = ? AND state = 'spent'", (edition.store_id, edition.number)
    )


def directories(tx: Transaction, store_id: str | None = None) -> set[str]:
    """Return the name of every directory that a row speaks of, of all stores or of one; deleted ones included."""
    one = store_id is not None
    rows = tx.execute(
        f"SELECT id, edition FROM vector_stores {'WHERE id = :id' if one else ''}"
        f" UNION ALL SELECT store_id, number FROM editions {'WHERE store_id = :id' if one else ''}",
        {"id": store_id},
    )
    return {index_name(store_id, number) for store_id, number in rows}


def _add(
    tx: Transaction, store_id: str, state: State, slot: int, model: str, dimension: int, budget: float = 1.0
) -> Edition:
    edition = Edition(
        store_id, _next_number(tx), state, slot, model, dimension, budget=budget, created_at=int(time.time())
    )
    tx.execute(
        "INSERT INTO editions (store_id, number, state, slot, model, dimension, budget, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (store_id, edition.number, state, slot, model, dimension, budget, edition.created_at),
    )
    return edition


def spend(tx: Transaction, store_id: str, state: State) -> None:
    tx.execute("UPDATE editions SET state = 'spent' WHERE store_id = ? AND state = ?", (store_id, state))


def _next_number(tx: Transaction) -> int:
    row = tx.execute("UPDATE counters SET value = value + 1 WHERE name = 'edition' RETURNING value").fetchone()
    return int(row[0])


def _edition(row: sqlite3.Row) -> Edition:
    return Edition(**{**dict(row), "is_wanted": bool(row["is_wanted"])})
