"""What nobody can be reading any more goes: replaced versions, deleted stores, editions that were given up.

All of it in slices, because the one SQLite writer is shared with every upload, and all of it begun again after a crash
from what the rows say.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import anyio.to_thread

from ragagent.errors import Damaged
from ragagent.index import directory, files, manifest
from ragagent.store import chunks, edition_vectors, editions, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition
from ragagent.types import VectorStore

log = logging.getLogger("ragagent.indexer")

ERASE_DOCUMENTS = 200  # per transaction, so that an upload never waits long for the one SQLite writer
ERASE_VECTORS = 2_000
GRACE_SECONDS = 60.0  # what was replaced stays this long: a query that began before still reads it


class Cleaner:
    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root
        self._swept: dict[str, int] = {}  # store -> seq shown at the last sweep: what died before it may go now
        self._spent: set[str] = set()  # indexes that were spent at the last sweep
        self._next_sweep = time.monotonic() + GRACE_SECONDS

    def remove_leftovers(self) -> None:
        """Remove the directories that no row names: what a crash cut short, or a database from a backup forgot."""
        with self._database.read() as tx:
            named = editions.directories(tx)
        found = [path.name for path in self._root.iterdir() if path.is_dir()] if self._root.is_dir() else []
        for name in set(found) - named:
            log.info("the index '%s' belongs to no store and is removed", name)
            directory.remove(self._root, name)

    async def erase(self, store_id: str) -> None:
        """Erase a slice of a deleted store; with the last one its indexes go."""
        names = await self._database.view(lambda tx: editions.directories(tx, store_id))
        if await self._database.update(lambda tx: stores.erase(tx, store_id, ERASE_DOCUMENTS)):
            for name in names:
                await anyio.to_thread.run_sync(directory.remove, self._root, name)

    async def sweep(self) -> set[str]:
        """Take away, once in a while, what was of no use already the time before; return the stores that changed."""
        for edition in await self._database.view(editions.dropped):
            await self._database.update(partial(_clear, edition))
        if time.monotonic() < self._next_sweep:
            return set()
        self._next_sweep = time.monotonic() + GRACE_SECONDS
        await self._remove_spent()
        return await self._purge_replaced()

    async def _remove_spent(self) -> None:
        spent = {edition.index: edition for edition in await self._database.view(editions.spent)}
        for name in spent.keys() & self._spent:
            await anyio.to_thread.run_sync(directory.remove, self._root, name)
            await self._database.update(partial(_forget, spent.pop(name)))
        self._spent = set(spent)

    async def _purge_replaced(self) -> set[str]:
        purged: set[str] = set()
        replaced = await self._database.view(stores.with_replaced)
        for store in (each for each in replaced if each.id in self._swept):
            while await self._database.update(partial(_purge, store.id, self._swept[store.id])):
                purged.add(store.id)
        self._swept = await anyio.to_thread.run_sync(lambda: {store.id: self._shown(store) for store in replaced})
        return purged

    def _shown(self, store: VectorStore) -> int:
        try:
            found = manifest.read(files.store_path(self._root, store.index))
        except Damaged:
            return 0
        return 0 if found is None else found[1].seq


def _purge(store_id: str, up_to: int, tx: Transaction) -> int:
    return chunks.purge_replaced(tx, store_id, up_to, ERASE_DOCUMENTS)


def _clear(edition: Edition, tx: Transaction) -> None:
    edition_vectors.clear(tx, edition, ERASE_VECTORS)


def _forget(edition: Edition, tx: Transaction) -> None:
    editions.forget(tx, edition)
