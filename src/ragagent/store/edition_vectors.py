"""The vectors of editions beside the searched one: made by a cursor over the chunks, and erased by one.

The cursor moves in the transaction that stores the vectors. Ids are given in the order of commits, so what it has
passed is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragagent.store.chunks import put_vectors
from ragagent.store.database import Transaction
from ragagent.store.editions import Edition

MANY = 10_000  # chunks without a vector: until there are fewer, an index of the others is not begun


def target(tx: Transaction, edition: Edition, watermark: int) -> int:
    """Return the seq up to which the edition can be published, when the store could be up to `watermark`.

    Beside the searched one, a chunk counts once its vector of that model is made.
    """
    if not edition.is_beside:
        return watermark
    row = tx.execute(
        "SELECT min(seq), count(*) FROM"
        " (SELECT seq FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? AND id > ? LIMIT ?)",
        (edition.store_id, edition.cursor, MANY + 1),
    ).fetchone()
    if row[1] > MANY:
        return 0
    return watermark if row[0] is None else min(watermark, int(row[0]) - 1)


def lacks_any(tx: Transaction, edition: Edition) -> bool:
    """Return whether there is a chunk whose vector of the edition's model is not made yet."""
    return edition.is_beside and bool(lacking(tx, edition, 1))


def lacking(tx: Transaction, edition: Edition, limit: int) -> list[tuple[int, str]]:
    """Return id and text of the next chunks whose vectors of the edition's model are to be made, by id."""
    rows = tx.execute(
        "SELECT id, text FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? AND id > ? ORDER BY id LIMIT ?",
        (edition.store_id, edition.cursor, limit),
    )
    return [(row[0], row[1]) for row in rows]


def give(tx: Transaction, edition: Edition, ids: Sequence[int], vectors: np.ndarray) -> bool:
    """Store vectors of the chunks after the cursor, and move it. False: the edition is not what it was meanwhile."""
    moved = tx.execute(
        "UPDATE editions SET cursor = ?, trouble = NULL"
        " WHERE store_id = ? AND number = ? AND cursor = ? AND slot = ? AND state IN ('next', 'kept')",
        (ids[-1], edition.store_id, edition.number, edition.cursor, edition.slot),
    )
    if moved.rowcount:
        put_vectors(tx, edition.slot, ids, vectors)
    return bool(moved.rowcount)


def clear(tx: Transaction, edition: Edition, limit: int) -> None:
    """Erase up to `limit` vectors of a dropped edition; when none is left, it is spent."""
    ids = [
        row[0]
        for row in tx.execute(
            "SELECT id FROM chunks INDEXED BY chunks_by_store WHERE store_id = ? AND id > ? ORDER BY id LIMIT ?",
            (edition.store_id, edition.cursor, limit),
        )
    ]
    tx.executemany(f"DELETE FROM vectors_{edition.slot:d} WHERE chunk_id = ?", ((chunk_id,) for chunk_id in ids))
    tx.execute(
        "UPDATE editions SET cursor = ?, state = iif(?, state, 'spent') WHERE store_id = ? AND number = ?",
        (ids[-1] if ids else edition.cursor, len(ids) == limit, edition.store_id, edition.number),
    )
