"""From SQLite to what every searcher sees: each store's index, brought up to what has been ingested.

A publish takes the chunks that were born and that died since the manifest's seq, so it is the same after a crash, after
a rebuild, and after an ordinary write. What is erased leaves a tombstone, and the next publish takes it out of the
index.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path

import anyio.to_thread

from ragagent import names, telemetry, text
from ragagent.config import Ingest as Settings
from ragagent.errors import Damaged, RagagentError
from ragagent.index import directory
from ragagent.index.compaction import Compaction
from ragagent.index.manifest import Manifest
from ragagent.index.writer import Row, Writer
from ragagent.store import chunks, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import VectorStore

log = logging.getLogger("ragagent.indexer")

PUBLISH_ROWS = 5_000  # rows a single publish carries; a rebuild of a large store is many of them
ERASE_DOCUMENTS = 200  # per transaction, so that an upload never waits long for the one SQLite writer
GRACE_SECONDS = 60.0  # replaced chunks stay this long: a query that began before the publish still reads them
OPEN_WRITERS = 16  # each keeps a handful of idle threads


class Publisher:
    """Keeps the index of every store. One task uses it; what takes long runs in threads that it waits for."""

    def __init__(self, database: Database, root: Path, settings: Settings) -> None:
        self._database = database
        self._root = root
        self._settings = settings
        self._open: OrderedDict[str, OpenIndex] = OrderedDict()  # the one used longest ago first
        self._shown: dict[str, Manifest] = {}  # of every store that was opened since the start
        self._names: dict[str, str] = {}
        self._purged: set[str] = set()  # stores with tombstones that no write announces
        self._swept: dict[str, int] = {}  # store -> seq published at the last sweep: what died before it may go now
        self._next_sweep = time.monotonic() + GRACE_SECONDS

    @property
    def manifests(self) -> list[tuple[str, Manifest]]:
        """Each store's name and what it shows, for status and metrics."""
        return [(self._names.get(store_id, ""), manifest) for store_id, manifest in self._shown.items()]

    async def publish(self) -> bool:
        """Bring every store up to what has been ingested; return whether there was anything to do."""
        worked = False
        failures: list[RagagentError] = []
        living = await self._database.view(stores.living)
        self._names = {store.id: store.name for store in living}
        for store in living:
            shown = self._shown.get(store.id)
            if shown is None or shown.seq < store.seq or store.id in self._purged:
                try:
                    worked |= await self._bring_up(store)
                except RagagentError as exc:
                    failures.append(exc)  # The stores behind this one do not wait for it.
        for store_id in list(self._open):
            await self._compact(store_id)
        await self._close_surplus()
        if failures:
            raise failures[0]
        return worked

    async def erase_deleted(self) -> bool:
        """Erase stores that were deleted, a slice at a time; return whether there were any."""
        deleted = await self._database.view(stores.deleted)
        for store_id in deleted:
            await self._close(store_id)
            self._shown.pop(store_id, None)
            if await self._database.update(partial(_erase, store_id)):
                await anyio.to_thread.run_sync(directory.remove, self._root, store_id)
        return bool(deleted)

    async def sweep(self) -> None:
        """Erase replaced versions that no running query can still be reading."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + GRACE_SECONDS
        for store_id in self._swept.keys() & self._shown.keys():
            while await self._database.update(partial(_purge, store_id, self._swept[store_id])):
                self._purged.add(store_id)
        self._swept = {store_id: manifest.seq for store_id, manifest in self._shown.items()}

    async def close(self) -> None:
        for store_id in list(self._open):
            await self._close(store_id)

    async def _bring_up(self, store: VectorStore) -> bool:
        try:
            index = await self._opened(store)
            worked = await anyio.to_thread.run_sync(index.bring_up)
        except Damaged as exc:
            if exc.code != Damaged.code:
                raise  # It is the database: then the index is the better half, and stays.
            log.error("the index of %s is damaged and is rebuilt from the database: %s", store.id, exc.message)
            await self._close(store.id)
            await anyio.to_thread.run_sync(directory.remove, self._root, store.id)
            self._shown.pop(store.id, None)
            return True
        except BaseException:
            await self._close(store.id)  # Its writer has closed itself; the next step opens it anew.
            raise
        self._purged.discard(store.id)
        self._shown[store.id] = index.manifest
        return worked

    async def _compact(self, store_id: str) -> None:
        try:
            await self._open[store_id].compact()
        except BaseException:
            await self._close(store_id)  # With the build, so that there can be another.
            raise
        self._shown[store_id] = self._open[store_id].manifest

    async def _opened(self, store: VectorStore) -> OpenIndex:
        if store.id not in self._open:
            index = await anyio.to_thread.run_sync(OpenIndex, self._database, self._root, store, self._settings)
            self._open[store.id] = index
        self._open.move_to_end(store.id)
        return self._open[store.id]

    async def _close_surplus(self) -> None:
        idle = [store_id for store_id, index in self._open.items() if not index.is_building]
        for store_id in idle[: max(len(self._open) - OPEN_WRITERS, 0)]:
            await self._close(store_id)

    async def _close(self, store_id: str) -> None:
        if index := self._open.pop(store_id, None):
            await index.close()


class OpenIndex:
    """The index of one store, open for writing, and the build of its next generation while there is one."""

    def __init__(self, database: Database, root: Path, store: VectorStore, settings: Settings) -> None:
        self._database = database
        self._store_id = store.id
        self._slot = store.slot
        self._writer = Writer.open(
            root,
            store.id,
            store.model,
            store.dimension,
            hnsw_rows=settings.hnsw_rows,
            max_delta_rows=settings.max_delta_rows,
        )
        self._build: tuple[Compaction, asyncio.Future[None]] | None = None

    @property
    def manifest(self) -> Manifest:
        return self._writer.manifest

    @property
    def is_building(self) -> bool:
        return self._build is not None

    def bring_up(self) -> bool:
        """Publish up to the store's watermark; return whether there was anything to publish."""
        with self._database.read() as tx:
            target = jobs.watermark(tx, self._store_id)
            if target < self._writer.seq:
                raise Damaged(f"It shows write {self._writer.seq}, and the database knows none after {target}.")
            buried = chunks.buried(tx, self._store_id, target)
            if target == self._writer.seq and not buried:
                return False
            died = chunks.died(tx, self._store_id, self._writer.seq, target)
        started = time.perf_counter()
        with telemetry.span(names.INDEX_PUBLISH, {names.STORE_ID: self._store_id}):
            self._append(target)
            self._writer.publish(target, dead=[*died, *buried], forget=buried)
        telemetry.record(names.PUBLISH_DURATION, time.perf_counter() - started, {names.PUBLISH_KIND: "delta"})
        if buried:
            with self._database.write() as tx:
                chunks.clear_tombstones(tx, buried)
        return True

    async def compact(self) -> None:
        """Build the next generation beside the publishing, and put it in service when it is done."""
        self._writer.prune()
        if self._build is not None:
            build, task = self._build
            if task.done():
                task.result()
                await anyio.to_thread.run_sync(self._writer.finish_compaction, build)
                self._build = None
        elif self._writer.needs_compaction:
            build = self._writer.begin_compaction()
            self._build = build, asyncio.get_running_loop().run_in_executor(None, build.run)

    async def close(self) -> None:
        # The build's thread ends before anyone may open this store again.
        if self._build is not None:
            build, task = self._build
            build.cancel()
            with contextlib.suppress(Exception):
                await task
            build.close()
        await anyio.to_thread.run_sync(self._writer.close)

    def _append(self, target: int) -> None:
        """Publish the new rows in slices that still say the old seq: readers see them when the last step says the new.

        After a crash in between, the next run appends them again, and each replaces itself.
        """
        base, beyond = self._writer.seq, 0
        while True:
            with self._database.read() as tx:
                rows = chunks.born(tx, self._store_id, self._slot, base, target, beyond=beyond, limit=PUBLISH_ROWS)
            if not rows:
                return
            added = [Row(row.id, row.document_id, row.vector, " ".join(text.tokens(row.text))) for row in rows]
            self._writer.publish(base, added)
            beyond = rows[-1].id


def _erase(store_id: str, tx: Transaction) -> bool:
    return stores.erase(tx, store_id, ERASE_DOCUMENTS)


def _purge(store_id: str, up_to: int, tx: Transaction) -> int:
    return chunks.purge_replaced(tx, store_id, up_to, ERASE_DOCUMENTS)
