"""A store's editions as a request meets them. It has read the store's row; what the row names may have gone meanwhile.

An index is damaged or missing for one of two reasons: the row is out of date, and then the new row leads on; or the
files are, and then they are made anew beside, and the request is told to come back.
"""

from __future__ import annotations

from contextlib import ExitStack

from ragagent.errors import Damaged, NotFound, RagagentError, Unavailable
from ragagent.index.searcher import Searcher
from ragagent.index.searchers import Searchers
from ragagent.store import editions, stores
from ragagent.store.database import Database
from ragagent.types import VectorStore

REBUILD_RETRY_SECONDS = 2.0


class Moved(Exception):
    """The store's row names another edition by now: read it again. Never leaves `engine`."""


def seq(searchers: Searchers, store: VectorStore) -> int:
    """Return up to where a search of the store sees; nothing, while its index cannot be read."""
    try:
        return searchers.seq(store.index)
    except Damaged:
        return 0


def pin(pins: ExitStack, database: Database, searchers: Searchers, store: VectorStore) -> Searcher:
    """Return the searcher of the store's edition, open as long as `pins`. Raises Moved, NotFound, Unavailable."""
    try:
        searcher = pins.enter_context(searchers.pin(store.index))
    except Damaged as exc:
        raise _lost(database, store) from exc
    if store.is_indexed and not searcher.generation:  # There was an index, and now there is none.
        raise _lost(database, store)
    return searcher


def _lost(database: Database, store: VectorStore) -> RagagentError | Moved:
    with database.read() as tx:
        row = stores.get(tx, store.id)
        is_known = editions.find(tx, store.id, "rebuild") is not None
    if row is None:
        return NotFound(f"Vector store '{store.id}' does not exist.", param="vector_store_id")
    if row.index != store.index:
        return Moved()
    if not is_known:
        with database.write() as tx:
            row = stores.get(tx, store.id)
            if row is not None and row.index == store.index:
                editions.rebuild(tx, row)
    return Unavailable(
        f"The index of vector store '{store.name or store.id}' cannot be read and is being rebuilt from the database; "
        "its documents are safe.",
        code="index_rebuilding",
        retry_after=REBUILD_RETRY_SECONDS,
    )
