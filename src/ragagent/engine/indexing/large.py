"""Large documents: parsed once, then embedded slice by slice, in turns, with all that is done on disk.

A kill costs a slice. Between two turns other documents are taken in, so that none waits for the whole of a large one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ragagent.engine.indexing.drafting import Draft, Drafter, blamed
from ragagent.engine.indexing.settling import settle
from ragagent.engine.indexing.slices import AllSlices, Unembeddable
from ragagent.engine.indexing.workbench import Workbench
from ragagent.errors import Conflict, Invalid
from ragagent.providers.base import Vectors
from ragagent.store import jobs, staging
from ragagent.store.database import Database, Transaction
from ragagent.store.jobs import JobRow

STAGE_PIECES = 1_000  # per transaction
TURN_SECONDS = 1.0


class LargeDocuments:
    def __init__(self, database: Database, drafter: Drafter, slices: AllSlices, bench: Workbench) -> None:
        self._database = database
        self._drafter = drafter
        self._slices = slices
        self._bench = bench

    async def set_aside(self, draft: Draft) -> None:
        """Stage the pieces of a document that is too large for one call; its turns come."""
        job = draft.job
        await self._database.update(lambda tx: staging.begin(tx, job.document_id))
        for first in range(0, len(draft.pieces), STAGE_PIECES):
            rows = [(p.ordinal, p.start, p.end, p.text) for p in draft.pieces[first : first + STAGE_PIECES]]
            if not await self._database.update(partial(_put_pieces, job, rows)):
                break

        def finish(tx: Transaction) -> None:
            staging.finish_pieces(tx, job, len(draft.pieces))
            jobs.give_back(tx, [job.document_id])

        await self._database.update(finish)
        self._bench.drop([job.document_id])

    async def turn(self, is_leaving: Callable[[], bool]) -> bool:
        """Give the oldest of them a turn; return whether there was one. Raises Upstream: the embedder is away."""
        if not await self._database.view(jobs.any_staged_due):
            return False
        job = await self._database.update(lambda tx: jobs.take_staged(tx, self._bench.holder))
        if job is None:
            return False
        self._bench.hold([job], "embedding")
        draft = await self._draft(job, is_leaving)
        if draft is not None:
            await settle(self._database, [draft])
        else:
            await self._database.update(lambda tx: jobs.give_back(tx, [job.document_id]))
        self._bench.drop([job.document_id])
        return True

    async def _draft(self, job: JobRow, is_leaving: Callable[[], bool]) -> Draft | None:
        try:
            self._drafter.check(job)
        except (Conflict, Invalid) as exc:
            return Draft(job, error=exc)
        if job.staged_for != str(job.space):
            # Its store has changed to another model: what is done is worth nothing, and it begins anew.
            await self._database.update(lambda tx: staging.begin(tx, job.document_id))
            return None
        try:
            return await self._embed(job, is_leaving)
        except Unembeddable as exc:
            return blamed(job, exc)

    async def _embed(self, job: JobRow, is_leaving: Callable[[], bool]) -> Draft | None:
        """Embed for the length of a turn; return the document when it is whole, None while it is not, or is gone."""
        slices = self._slices.of(job)
        done, ends = job.chunks_done, time.monotonic() + TURN_SECONDS
        while done < job.chunks_total:
            texts = await self._database.view(partial(_texts, job, done, slices.size))
            if not texts:
                return None  # It was cancelled, and what was staged went with it.
            vectors = await slices.embed(texts)
            if not await self._database.update(partial(_put, job, done, vectors)):
                return None
            done += len(texts)
            if done < job.chunks_total and (time.monotonic() > ends or is_leaving()):
                return None
        return Draft(job, is_staged=True)


def _put_pieces(job: JobRow, rows: list[staging.Piece], tx: Transaction) -> bool:
    return staging.put_pieces(tx, job, rows)


def _texts(job: JobRow, start: int, limit: int, tx: Transaction) -> list[str]:
    return staging.texts(tx, job.document_id, start, limit)


def _put(job: JobRow, start: int, vectors: Vectors, tx: Transaction) -> bool:
    return staging.put_vectors(tx, job, start, vectors)
