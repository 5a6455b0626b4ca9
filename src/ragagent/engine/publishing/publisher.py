"""From SQLite to what every searcher sees: each store's index, brought up to what has been ingested.

A publish takes the chunks that were born and that died since the manifest's seq, so it is the same after a crash, after
a rebuild, and after an ordinary write. What is erased leaves a tombstone, and the next publish takes it out of the
index. A store that has not changed costs nothing: a step asks SQLite what has, and opens no more than that.

Beside the edition that is searched there may be one that is made anew, and one of another model; they are brought up
alike, a little at a time. When such a one is wanted, and shows all that is seen already, one statement switches.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio.to_thread

from ragagent.config import Ingest as Settings
from ragagent.engine.publishing.cleaning import Cleaner
from ragagent.engine.publishing.open_index import AHEAD, OpenIndex
from ragagent.engine.publishing.watching import Task, Watch, is_to_be_searched
from ragagent.errors import Conflict, Damaged, RagagentError
from ragagent.index import directory, files, manifest
from ragagent.index.manifest import Manifest
from ragagent.store import chunks, cutover, editions, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition
from ragagent.types import VectorStore

log = logging.getLogger("ragagent.indexer")

OPEN_WRITERS = 16  # each keeps a handful of idle threads
KNOWN_STORES = 50


class Publisher:
    """Keeps the index of every store. One task uses it; what takes long runs in threads that it waits for."""

    def __init__(self, database: Database, root: Path, settings: Settings) -> None:
        self._database = database
        self._root = root
        self._settings = settings
        self._cleaner = Cleaner(database, root)
        self._open: OrderedDict[str, OpenIndex] = OrderedDict()  # by index; the one used longest ago first
        self._known: dict[str, Manifest] = {}  # what stores show, of a few: as they were read, or as they are open
        self._names: dict[str, str] = {}  # of those stores
        self._watch = Watch()
        self._spent: set[str] = set()  # indexes that are open, and that no row has any more
        self._broken: set[str] = set()  # indexes that cannot be opened, and are made anew
        self.store_count = 0

    @property
    def manifests(self) -> list[tuple[str, Manifest]]:
        """The name and what is shown of the stores that changed last, for status and metrics."""
        for index in list(self._open.values()):
            self._note(index.edition, index.manifest)
        return [(self._names.get(store_id, ""), shown) for store_id, shown in list(self._known.items())]

    async def publish(self) -> bool:
        """Bring every store up to what has been ingested; return whether there was anything to do."""
        if self._watch.is_new:
            await anyio.to_thread.run_sync(self._cleaner.remove_leftovers)
        worked = False
        failures: list[RagagentError] = []
        made: list[str] = []
        due = await anyio.to_thread.run_sync(self._due)
        for name in self._spent:
            await self._close(name)
        for task in due:
            self._watch.done(task.store.id)
            try:
                worked |= await self._bring_up(task)
                if not task.store.is_indexed:
                    made.append(task.store.id)
            except RagagentError as exc:
                failures.append(exc)  # The stores behind this one do not wait for it.
                self._watch.again(task.store.id)
        if made:
            await self._database.update(lambda tx: editions.mark_indexed(tx, made))
        for name in list(self._open):
            await self._compact(name)
        await self._close_surplus()
        if failures:
            raise failures[0]
        return worked

    async def erase_deleted(self) -> bool:
        """Erase stores that were deleted, a slice at a time; return whether there were any."""
        deleted = await self._database.view(stores.deleted)
        for name, index in list(self._open.items()):
            if index.edition.store_id in deleted:
                await self._close(name)
        for store_id in deleted:
            self._watch.done(store_id)
            self._known.pop(store_id, None)  # After the last hold on it was closed.
            await self._cleaner.erase(store_id)
        return bool(deleted)

    async def sweep(self) -> None:
        """Erase what nobody can be reading any more: replaced versions, and editions that were given up."""
        self._watch.again(*await self._cleaner.sweep())

    async def close(self) -> None:
        for name in list(self._open):
            await self._close(name)

    # What there is to do

    def _due(self) -> list[Task]:
        """Return the stores of which some edition is behind, or is to be switched to. Opens none."""
        with self._database.read() as tx:
            due = self._watch.look(tx, self._shown)
            opened = {index.edition.store_id for index in self._open.values()}
            rows = stores.several(tx, opened | self._known.keys())
            self.store_count = stores.count(tx)
        self._names = {store.id: store.name for store in rows}
        self._spent = self._open.keys() - self._watch.indexes(rows)
        return due

    def _shown(self, edition: Edition) -> int:
        if (index := self._open.get(edition.index)) is not None:
            return index.manifest.seq
        try:
            found = manifest.read(files.store_path(self._root, edition.index))
        except Damaged:
            return -1
        if found is not None:
            self._note(edition, found[1])
        return -1 if found is None else found[1].seq

    def _note(self, edition: Edition, shown: Manifest) -> None:
        if edition.state != "searched":
            return
        self._known.pop(edition.store_id, None)  # The last one is the one that changed last.
        self._known[edition.store_id] = shown
        if len(self._known) > KNOWN_STORES:
            del self._known[next(iter(self._known))]

    # Doing it

    async def _bring_up(self, task: Task) -> bool:
        """Bring up every edition of a store, and switch to the one that is to be searched when it is ready."""
        worked = task.generation is not None
        if task.generation is not None:
            await self._go_back(task.editions[0], task.generation)
        buried = await self._database.view(partial(_buried, task.store.id))
        for edition in task.editions:
            if edition.index not in self._broken:
                worked |= await self._bring_up_one(task.store, edition, buried)
        if buried:
            # Every edition is without them now; one that is broken is made anew, from rows that are there.
            await self._database.update(lambda tx: chunks.clear_tombstones(tx, buried))
        for edition in task.editions:
            index = self._open.get(edition.index)
            if is_to_be_searched(edition) and index is not None and index.is_ready:
                worked |= await self._switch(edition, index)
        return worked

    async def _go_back(self, searched: Edition, generation: int) -> None:
        """Show an earlier generation again; what is newer is published from the database right after."""
        await self._close(searched.index)  # With the build that may be under way.
        trouble: str | None = None
        try:
            index = await self._opened(searched)
            await anyio.to_thread.run_sync(index.go_back, generation)
            log.info("the index '%s' goes back to generation %d", searched.index, generation)
        except (Conflict, Damaged) as exc:
            trouble = exc.message
        await self._close(searched.index)  # What it remembers of the newer state is over.
        await self._database.update(lambda tx: editions.end_return(tx, searched.store_id, trouble))

    async def _bring_up_one(self, store: VectorStore, edition: Edition, buried: Sequence[int]) -> bool:
        try:
            if edition.state == "searched" and store.is_indexed:
                await anyio.to_thread.run_sync(_refuse_missing, self._root, edition)
            index = await self._opened(edition)
            worked = await anyio.to_thread.run_sync(index.bring_up, buried)
        except Damaged as exc:
            if exc.code not in (Damaged.code, AHEAD):
                raise  # It is the database: then the index is the better half, and stays.
            await self._close(edition.index)
            await self._make_anew(edition, exc)
            return True
        except BaseException:
            await self._close(edition.index)  # Its writer has closed itself; the next step opens it anew.
            raise
        if worked or not index.is_ready or store.seq > index.manifest.seq:
            self._watch.again(store.id)
        return worked

    async def _make_anew(self, edition: Edition, why: Damaged) -> None:
        log.error("the index '%s' is damaged and is rebuilt from the database: %s", edition.index, why.message)
        self._watch.again(edition.store_id)
        if edition.state != "searched":
            await self._database.update(lambda tx: editions.renew(tx, edition))
            return
        self._broken.add(edition.index)
        await self._database.update(partial(_rebuild, edition.store_id))
        if why.code == AHEAD:
            # It shows chunks that the database does not know, under numbers that it will give to others.
            await anyio.to_thread.run_sync(directory.remove, self._root, edition.index)

    async def _switch(self, edition: Edition, index: OpenIndex) -> bool:
        self._watch.again(edition.store_id)
        shown = index.manifest.seq
        if not await self._database.update(lambda tx: cutover.switch(tx, edition, shown)):
            return False
        log.info("the store %s is searched in '%s' (%s) from now on", edition.store_id, edition.index, edition.model)
        return True

    async def _compact(self, name: str) -> None:
        try:
            await self._open[name].compact()
        except Damaged as exc:  # Of the vectors, which only a merge reads as a whole.
            edition = self._open[name].edition
            await self._close(name)
            await self._make_anew(edition, exc)
        except BaseException:
            await self._close(name)  # With the build, so that there can be another.
            raise

    async def _opened(self, edition: Edition) -> OpenIndex:
        if edition.index not in self._open:
            index = await anyio.to_thread.run_sync(OpenIndex, self._database, self._root, edition, self._settings)
            self._open[edition.index] = index
        self._open.move_to_end(edition.index)
        self._open[edition.index].edition = edition
        return self._open[edition.index]

    async def _close_surplus(self) -> None:
        idle = [name for name, index in self._open.items() if not index.is_building]
        for name in idle[: max(len(self._open) - OPEN_WRITERS, 0)]:
            await self._close(name)

    async def _close(self, name: str) -> None:
        if index := self._open.pop(name, None):
            self._note(index.edition, index.manifest)
            await index.close()


def _buried(store_id: str, tx: Transaction) -> list[int]:
    return chunks.buried(tx, store_id, jobs.watermark(tx, store_id))


def _rebuild(store_id: str, tx: Transaction) -> None:
    if (store := stores.get(tx, store_id)) is not None:
        editions.rebuild(tx, store)


def _refuse_missing(root: Path, edition: Edition) -> None:
    if manifest.stamp(files.store_path(root, edition.index)) is None:
        raise Damaged("It is not there.")
