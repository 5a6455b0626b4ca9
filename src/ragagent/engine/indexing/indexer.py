"""The indexer's work: from the queue in SQLite to chunks, and on to what every searcher sees.

The ingest takes the oldest jobs, parses, chunks and embeds them, and stores the results in short transactions; the
publisher brings the indexes up. Both run side by side: a slow embedder holds up neither what is stored already nor a
delete. Whatever a crash interrupts is found again in SQLite: a job that was taken is still queued, and chunks beyond a
manifest's seq are published by the next step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Sequence

from ragagent.engine.indexing.drafting import Draft, Drafter, Parser, blamed
from ragagent.engine.indexing.large import LargeDocuments
from ragagent.engine.indexing.settling import settle
from ragagent.engine.indexing.slices import AllSlices, Unembeddable
from ragagent.engine.indexing.workbench import Workbench
from ragagent.engine.publishing.publisher import Publisher
from ragagent.errors import RagagentError, Unavailable
from ragagent.providers.embedders import Embedders
from ragagent.store import jobs
from ragagent.store.database import Database
from ragagent.store.jobs import JobRow, Work

log = logging.getLogger("ragagent.indexer")

TAKE_JOBS = 64
TAKE_BYTES = 32 * 1024 * 1024
SMALL_PIECES = 8  # a document of so many is never set aside, however slow the embedder is
PATIENCE_SECONDS = 0.05  # how long a step waits for the ingest before it publishes what there is
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
CLOSE_SECONDS = 2.0


class Indexer:
    """`is_leaving` is asked between documents: what is not begun then stays queued, uncounted."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        parser: Parser,
        embedders: Embedders,
        *,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._is_leaving = is_leaving
        self._drafter = Drafter(database, parser, embedders)
        self._slices = AllSlices(embedders)
        self._bench = Workbench(database)
        self._large = LargeDocuments(database, self._drafter, self._slices, self._bench)
        self._pause = Pause()
        self._under_way: asyncio.Task[bool] | None = None
        self._has_reclaimed = False

    async def step(self) -> bool:
        """Do what there is to do now; return whether there was anything, or something is still under way."""
        worked = await self._ingest_for_a_moment()
        worked |= await self._publisher.publish()
        worked |= await self._publisher.erase_deleted()
        await self._publisher.sweep()
        return worked

    async def close(self) -> None:
        """End what is under way. After a moment it is cut short: what is not on disk is done again by the next one."""
        if self._under_way is None:
            return
        task, self._under_way = self._under_way, None
        await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, RagagentError):
            log.error("the last ingest failed: %s", result.message, exc_info=result.__cause__)
        elif isinstance(result, Exception):
            raise result

    async def _ingest_for_a_moment(self) -> bool:
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._ingest())
        done, _ = await asyncio.wait({self._under_way}, timeout=PATIENCE_SECONDS)
        if not done:
            return True
        task, self._under_way = self._under_way, None
        return task.result()

    async def _ingest(self) -> bool:
        """Take in what waits, and give a large document its turn; return whether there was anything."""
        if self._pause.is_on:
            return False
        beats = asyncio.create_task(self._bench.keep_beating())
        try:
            await self._reclaim()
            worked = await self._fresh()
            worked |= await self._large.turn(self._is_leaving)
        except Unavailable as exc:
            # Not the documents' fault: they stay queued, uncounted, and what is missing gets a pause.
            await self._put_down(exc)
            log.warning("cannot ingest, will try again in %.1f s: %s", self._pause.begin(exc.retry_after), exc.message)
            return False
        except (RagagentError, asyncio.CancelledError) as exc:
            await self._put_down(exc if isinstance(exc, RagagentError) else None)
            raise
        finally:
            beats.cancel()
        if worked:
            self._pause.end()
        return worked

    async def _reclaim(self) -> None:
        """Take back what an earlier indexer, or an earlier step that could not even say so, has left."""
        await self._put_down(None)
        if not self._has_reclaimed:
            left = await self._database.update(lambda tx: jobs.reclaim(tx, self._bench.holder))
            if left:
                log.warning("an earlier indexer ended with %d documents in hand; they are taken again", left)
            self._has_reclaimed = True

    async def _put_down(self, reason: RagagentError | None) -> None:
        if held := self._bench.document_ids:
            await self._database.update(lambda tx: jobs.give_back(tx, held, reason))
            self._bench.drop(held)

    async def _fresh(self) -> bool:
        taken = await self._take()
        group: list[Draft] = []
        for job in taken:
            if self._is_leaving():
                break
            draft = await self._drafter.draft(job)
            size = self._slices.of(job).size if draft.pieces else 1
            if len(draft.pieces) > max(size, SMALL_PIECES):
                await self._large.set_aside(draft)
                continue
            if group and group[0].job.space != job.space:  # One call is to one embedder.
                await self._finish(group)
                group = []
            group.append(draft)
            if sum(len(draft.pieces) for draft in group) >= size:
                await self._finish(group)
                group = []
        await self._finish(group)
        await self._put_down(None)  # what was not begun
        return bool(taken)

    async def _take(self) -> list[JobRow]:
        """Take jobs. Looks first: the write transaction is for when there is something to write."""
        if not await self._database.view(jobs.any_due):
            return []
        taken = await self._database.update(lambda tx: jobs.take(tx, self._bench.holder, TAKE_JOBS, TAKE_BYTES))
        self._bench.hold(taken, "parsing")
        return taken

    async def _finish(self, group: Sequence[Draft]) -> None:
        if not group:
            return
        for draft in group:
            self._bench.note(Work(draft.job.document_id, "embedding", len(draft.pieces)))
        await settle(self._database, await self._embedded(group))
        self._bench.drop(draft.job.document_id for draft in group)

    async def _embedded(self, group: Sequence[Draft]) -> list[Draft]:
        """Return the drafts, of one model, with their vectors: of all at once, or one by one if one may be to blame."""
        texts = [piece.text for draft in group for piece in draft.pieces]
        if not texts:
            return list(group)  # They have failed already, and say why.
        try:
            vectors = await self._slices.of(group[0].job).embed(texts)
        except Unembeddable as exc:
            if len(group) == 1:
                return [blamed(group[0].job, exc)]
            return [one for draft in group for one in await self._embedded([draft])]
        ends = itertools.accumulate(len(draft.pieces) for draft in group)
        return [
            dataclasses.replace(draft, vectors=vectors[end - len(draft.pieces) : end])
            for draft, end in zip(group, ends, strict=True)
        ]


class Pause:
    """How long to leave alone what is away: twice as long each time, or as long as it asks for."""

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._next = FIRST_PAUSE_SECONDS

    @property
    def is_on(self) -> bool:
        return time.monotonic() < self._ends_at

    def begin(self, asked: float | None) -> float:
        """Begin a pause and return its length in seconds."""
        seconds = self._next if asked is None else min(asked, LONGEST_RETRY_AFTER_SECONDS)
        self._ends_at = time.monotonic() + seconds
        self._next = min(self._next * 2, LONGEST_PAUSE_SECONDS)
        return seconds

    def end(self) -> None:
        self._next = FIRST_PAUSE_SECONDS
