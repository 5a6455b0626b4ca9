"""The switch of what is searched from one edition of a store to another: one UPDATE of the store's own row."""

from __future__ import annotations

import time

from ragagent.store import edition_vectors, editions, jobs
from ragagent.store.database import Transaction
from ragagent.store.editions import Edition


def switch(tx: Transaction, edition: Edition, shown: int) -> bool:
    """Have searches use the edition from now on, if it shows (up to `shown`) all that they see already.

    One statement changes model, dimension, slot and edition. What was searched is spent, or, where it is of the other
    model, kept (and `next`, when this one was kept). Return whether it was done.
    """
    row = tx.execute(
        "SELECT slot, model, dimension, edition FROM vector_stores WHERE id = ? AND deleted_at IS NULL",
        (edition.store_id,),
    ).fetchone()
    standing = next((each for each in editions.listing(tx, edition.store_id) if each.number == edition.number), None)
    if row is None or standing is None or standing.state != edition.state:
        return False
    if shown < jobs.watermark(tx, edition.store_id) or edition_vectors.lacks_any(tx, standing):
        return False
    tx.execute("DELETE FROM editions WHERE store_id = ? AND number = ?", (edition.store_id, edition.number))
    state = {"rebuild": "spent", "next": "kept", "kept": "next"}[edition.state]
    cursor = tx.execute("SELECT coalesce(max(id), 0) FROM chunks").fetchone()[0]  # Its slot has had all until now.
    tx.execute(
        "INSERT INTO editions (store_id, number, state, slot, model, dimension, cursor, budget, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            edition.store_id,
            row["edition"],
            state,
            row["slot"],
            row["model"],
            row["dimension"],
            cursor,
            standing.budget,
            int(time.time()),
        ),
    )
    if state != "spent":  # What was being made anew is not what is searched any more.
        editions.spend(tx, edition.store_id, "rebuild")
    tx.execute(
        "UPDATE vector_stores SET model = ?, dimension = ?, slot = ?, edition = ? WHERE id = ?",
        (edition.model, edition.dimension, edition.slot, edition.number, edition.store_id),
    )
    return True
