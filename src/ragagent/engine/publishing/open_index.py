"""One edition of a store's index, open for writing, and the build of its next generation while there is one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
import numpy as np

from ragagent import names, telemetry, text
from ragagent.config import Ingest as Settings
from ragagent.errors import Damaged
from ragagent.index.compaction import Compaction
from ragagent.index.manifest import Manifest
from ragagent.index.rows import Row
from ragagent.index.writer import Writer
from ragagent.store import chunks, edition_vectors, jobs
from ragagent.store.database import Database
from ragagent.store.editions import Edition

PUBLISH_ROWS = 5_000  # rows a single publish carries
FILL_ROWS = 1_000  # rows that an edition nobody searches gets in one step: the others wait no longer than for these

AHEAD = "index_ahead"


class OpenIndex:
    """`edition` is its row as it was read last: the cursor in it moves, and so does its state."""

    def __init__(self, database: Database, root: Path, edition: Edition, settings: Settings) -> None:
        self.edition = edition
        self._database = database
        self._writer = Writer.open(
            root,
            edition.index,
            edition.model,
            edition.dimension,
            hnsw_rows=settings.hnsw_rows,
            max_delta_rows=settings.max_delta_rows,
            vectors=settings.vectors,
            retain_bytes=settings.retain_bytes,
        )
        self._build: tuple[Compaction, asyncio.Future[None]] | None = None
        self._is_behind = edition.state != "searched"
        self._forgotten = 0  # up to this write, words do not find what was replaced any more

    @property
    def manifest(self) -> Manifest:
        return self._writer.manifest

    @property
    def is_building(self) -> bool:
        return self._build is not None

    @property
    def is_ready(self) -> bool:
        """Whether it could be searched as fast as one that always was: caught up, and no large delta to scan."""
        return not (self._is_behind or self.is_building or self._writer.needs_compaction)

    def bring_up(self, buried: Sequence[int]) -> bool:
        """Publish what the store has by now, and take out `buried`; return whether there was anything to publish.

        Where readers look on, all of it, at one moment. An edition that is made beside goes a few rows at a time, in
        the order of their seqs: its manifest's seq is how far it is, also after a crash.
        """
        store_id, shown = self.edition.store_id, self._writer.seq
        with self._database.read() as tx:
            watermark = jobs.watermark(tx, store_id)
            if watermark < shown:
                raise Damaged(f"It shows write {shown}, and the database knows none after {watermark}.", code=AHEAD)
            goal = max(edition_vectors.target(tx, self.edition, watermark), shown)
            is_searched = self.edition.state == "searched"
            up_to = goal if is_searched else chunks.seq_after(tx, store_id, shown, goal, FILL_ROWS)
            died = chunks.died(tx, store_id, shown, up_to)
            # What died before the manifest that stands is seen by no reader of it. Left in the lexical leg until it is
            # erased, the versions of a text that changes often would push everything else out of it.
            unseen = chunks.died(tx, store_id, self._forgotten, shown)
        self._is_behind = up_to < watermark
        if up_to == shown and not buried:
            return False
        started = time.perf_counter()
        with telemetry.span(names.INDEX_PUBLISH, {names.STORE_ID: store_id}):
            self._append(up_to)
            self._writer.publish(up_to, dead=[*died, *buried], forget=[*buried, *unseen])
        self._forgotten = shown
        telemetry.record(names.PUBLISH_DURATION, time.perf_counter() - started, {names.PUBLISH_KIND: "delta"})
        return True

    def go_back(self, generation: int) -> None:
        """Show a generation again that was kept. Raises Conflict: none was; Damaged: it is not what was written."""
        with self._database.read() as tx:
            standing = np.array(chunks.ids(tx, self.edition.store_id), np.int64)
        self._writer.roll_back(generation, standing)

    async def compact(self) -> None:
        """Build the next generation beside the publishing, and put it in service when it is done."""
        self._writer.prune()
        if self._build is not None:
            build, task = self._build
            if task.done():
                task.result()
                await anyio.to_thread.run_sync(self._writer.finish_compaction, build)
                self._build = None
        elif self._writer.needs_compaction and not self._is_filling:
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

    @property
    def _is_filling(self) -> bool:
        # A generation in the middle of it would be built again and again, each time from all that came before.
        return self._is_behind and self.edition.state != "searched"

    def _append(self, up_to: int) -> None:
        """Publish the new rows in slices that still say the old seq: readers see them when the last step says the new.

        After a crash in between, the next run appends them again, and each replaces itself.
        """
        edition, base, beyond = self.edition, self._writer.seq, (0, 0)
        while True:
            with self._database.read() as tx:
                rows = chunks.born(tx, edition.store_id, edition.slot, base, up_to, beyond=beyond, limit=PUBLISH_ROWS)
            if not rows:
                return
            added = [Row(row.id, row.document_id, row.vector, " ".join(text.tokens(row.text))) for row in rows]
            self._writer.publish(base, added)
            beyond = rows[-1].seq, rows[-1].id
