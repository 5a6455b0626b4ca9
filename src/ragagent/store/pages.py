"""Pages of rows by OpenAI's list cursors, in the order of creation."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ragagent.store.database import Transaction
from ragagent.types import Page


def keyset(
    tx: Transaction, table: str, where: str, parameters: Sequence[object], page: Page, id_column: str = "id"
) -> list[sqlite3.Row]:
    """Return a page in creation order by OpenAI's cursors; an unknown cursor gives an empty page.

    The rowid breaks ties within a second, in the order of insertion.
    """
    ascending = page.order == "asc"
    for cursor, forward in ((page.after, True), (page.before, False)):
        if cursor:
            where += (
                f" AND (created_at, rowid) {'>' if ascending == forward else '<'}"
                f" (SELECT created_at, rowid FROM {table} WHERE {where} AND {id_column} = ?)"
            )
            parameters = [*parameters, *parameters, cursor]
    # Before a cursor, the page is the one nearest to it: read backwards, then turn round.
    backwards = page.before is not None and page.after is None
    direction = "ASC" if ascending != backwards else "DESC"
    rows = tx.execute(
        f"SELECT * FROM {table} WHERE {where} ORDER BY created_at {direction}, rowid {direction} LIMIT ?",
        (*parameters, page.limit),
    ).fetchall()
    return rows[::-1] if backwards else rows
