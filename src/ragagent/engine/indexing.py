"""The indexer's work: from the queue in SQLite to chunks, and on to what every searcher sees.

One step takes the oldest jobs, parses, chunks and embeds them, and stores the result in one short transaction; then the
publisher brings the indexes up. Whatever a crash interrupts is found again in SQLite: a job that was taken is still
queued, and chunks beyond a manifest's seq are published by the next step.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import anyio.to_thread
import numpy as np

from ragagent import names, telemetry
from ragagent.engine.chunk import Piece, chunk
from ragagent.engine.parsing.parsed import Parsed
from ragagent.engine.publishing import Publisher
from ragagent.errors import Conflict, Invalid, NotFound, RagagentError, Unavailable
from ragagent.providers.base import Embedder, Vectors
from ragagent.providers.embedders import Embedders
from ragagent.providers.endpoint import Refused
from ragagent.store import chunks, files, jobs, stores
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database, Transaction
from ragagent.store.jobs import JobRow

log = logging.getLogger("ragagent.indexer")

TAKE_JOBS = 64
TAKE_BYTES = 32 * 1024 * 1024
MAX_ATTEMPTS = 3
RETRY_SECONDS = 2.0

_NO_VECTORS = np.empty((0, 0), np.float32)


class Parser(Protocol):
    def parse(self, filename: str, data: bytes) -> Parsed: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """A document on its way: its pieces with their vectors, one row each, or why there are none."""

    job: JobRow
    pieces: tuple[Piece, ...] = ()
    vectors: Vectors = field(default_factory=lambda: _NO_VECTORS)
    error: RagagentError | None = None


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
        self._parser = parser
        self._embedders = embedders
        self._is_leaving = is_leaving

    async def step(self) -> bool:
        """Do what there is to do now; return whether there was anything."""
        worked = await self._ingest()
        worked |= await self._publisher.publish()
        worked |= await self._publisher.erase_deleted()
        await self._publisher.sweep()
        return worked

    async def _ingest(self) -> bool:
        taken = await self._take()
        if not taken:
            return False
        try:
            drafts = [
                draft for one_model in _by_model(await self._drafts(taken)) for draft in await self._embed(one_model)
            ]
            await self._database.update(lambda tx: self._store(tx, taken, drafts))
        except RagagentError as exc:
            # Not the documents' fault: they stay queued, uncounted, and what is missing gets a pause.
            await self._database.update(lambda tx: jobs.give_back(tx, taken))
            if not isinstance(exc, Unavailable):
                raise
            log.warning("cannot ingest, will try again in %.0f s: %s", RETRY_SECONDS, exc.message)
            await anyio.sleep(RETRY_SECONDS)
            return False
        return True

    async def _take(self) -> list[JobRow]:
        """Take jobs. Looks first: the write transaction is for when there is something to write."""
        if not await self._database.view(jobs.depth):
            return []
        return await self._database.update(lambda tx: jobs.take(tx, TAKE_JOBS, TAKE_BYTES))

    async def _drafts(self, taken: Sequence[JobRow]) -> list[Draft]:
        drafts: list[Draft] = []
        for job in taken:
            if self._is_leaving():
                break
            drafts.append(await self._draft(job))
        return drafts

    async def _draft(self, job: JobRow) -> Draft:
        with telemetry.span(
            names.INGEST, {names.INGEST_BYTES: job.bytes}, kind="consumer", link=job.traceparent
        ) as span:
            try:
                if job.attempts > MAX_ATTEMPTS:
                    raise Invalid(f"The indexer died {MAX_ATTEMPTS} times on this document.", code="server_error")
                self._embedders.of(job.model, job.dimension, "The store")
                pieces = await anyio.to_thread.run_sync(self._cut, job)
                span.set(names.INGEST_CHUNKS, len(pieces))
                return Draft(job, tuple(pieces))
            except (Conflict, Invalid, NotFound) as exc:  # NotFound: it was deleted since it was taken.
                span.fail(exc)
                return Draft(job, error=exc)

    def _cut(self, job: JobRow) -> list[Piece]:
        with self._database.read() as tx:
            data = files.content(tx, job.file_id)
        with telemetry.span(names.INGEST_PARSE):
            content = data.decode() if job.is_text else self._parser.parse(job.filename, data).text
        with telemetry.span(names.INGEST_CHUNK):
            pieces = chunk(content, max_tokens=job.chunk_tokens, overlap_tokens=job.overlap_tokens)
        if not pieces:
            raise Invalid("There is no text in it.", code="invalid_file")
        return pieces

    async def _embed(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Return the drafts, of one model, with their vectors: of all at once, or one by one if one may be to blame."""
        job = drafts[0].job
        embedder = self._embedders.find(job.model, job.dimension)
        if embedder is None:
            return list(drafts)  # They have failed already, and say why.
        try:
            vectors = await self._vectors(embedder, [piece.text for draft in drafts for piece in draft.pieces])
        except Refused as exc:
            if len(drafts) > 1:
                return [one for draft in drafts for one in await self._embed([draft])]
            # Who refuses any text at all is set up wrongly; that is not for the document to answer for.
            await self._vectors(embedder, ["text"])
            return [dataclasses.replace(drafts[0], pieces=(), error=Invalid(exc.message, code="invalid_file"))]
        ends = itertools.accumulate(len(draft.pieces) for draft in drafts)
        return [
            dataclasses.replace(draft, vectors=vectors[end - len(draft.pieces) : end])
            for draft, end in zip(drafts, ends, strict=True)
        ]

    async def _vectors(self, embedder: Embedder, texts: Sequence[str]) -> Vectors:
        if not texts:
            return _NO_VECTORS
        with telemetry.span(
            names.EMBEDDINGS.format(model=embedder.model), {names.INGEST_CHUNKS: len(texts)}, kind="client"
        ):
            return await embedder.embed(texts)

    def _store(self, tx: Transaction, taken: Sequence[JobRow], drafts: Sequence[Draft]) -> None:
        jobs.give_back(tx, taken[len(drafts) :])
        for draft in drafts:
            if draft.error is not None:
                chunks.fail(tx, draft.job.document_id, draft.error.code, draft.error.message)
                telemetry.count(names.INGESTED_DOCUMENTS, attributes={names.INGEST_OUTCOME: "failed"})
                continue
            store = stores.get(tx, draft.job.store_id)
            if store is not None and (store.model, store.dimension) != (draft.job.model, draft.job.dimension):
                jobs.give_back(tx, [draft.job])  # It was moved to another model since the job was taken.
                continue
            new = [
                NewChunk(piece.ordinal, piece.start, piece.end, piece.text, vector)
                for piece, vector in zip(draft.pieces, draft.vectors, strict=True)
            ]
            if chunks.complete(tx, draft.job.document_id, new):
                telemetry.count(names.INGESTED_DOCUMENTS, attributes={names.INGEST_OUTCOME: "indexed"})


def _by_model(drafts: Sequence[Draft]) -> list[list[Draft]]:
    """Return the drafts in groups that one embedder serves, each in its order."""
    groups: dict[tuple[str, int], list[Draft]] = {}
    for draft in drafts:
        groups.setdefault((draft.job.model, draft.job.dimension), []).append(draft)
    return list(groups.values())
