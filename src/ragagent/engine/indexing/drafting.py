"""From a job to the pieces of its document, or to the reason why there are none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio.to_thread

from ragagent import names, telemetry
from ragagent.engine.indexing.chunk import Piece, chunk
from ragagent.engine.indexing.parsing.parsed import Parsed
from ragagent.engine.indexing.slices import NO_VECTORS, Unembeddable
from ragagent.errors import Conflict, Damaged, Invalid, NotFound, RagagentError, StorageFull, Unavailable
from ragagent.providers.base import Vectors
from ragagent.providers.embedders import Embedders
from ragagent.store import files
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database
from ragagent.store.jobs import JobRow

log = logging.getLogger("ragagent.indexer")

MAX_ATTEMPTS = 3
MACHINES = (Unavailable, StorageFull, Damaged)  # trouble that is the machine's, whatever document meets it


class Parser(Protocol):
    def parse(self, filename: str, data: bytes) -> Parsed: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """A document on its way: its pieces with their vectors, one row each, or why there are none.

    An `error` is final. A `fault` ended this attempt; there may be another. A staged one has its pieces in SQLite.
    """

    job: JobRow
    pieces: Sequence[Piece] = ()
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)
    error: RagagentError | None = None
    fault: RagagentError | None = None
    is_staged: bool = False

    def chunks(self) -> list[NewChunk]:
        return [
            NewChunk(piece.ordinal, piece.start, piece.end, piece.text, vector)
            for piece, vector in zip(self.pieces, self.vectors, strict=True)
        ]


def blamed(job: JobRow, exc: Unembeddable) -> Draft:
    """Return what becomes of a document that the embedder does not take."""
    return Draft(job, error=Invalid(exc.message, code="invalid_file")) if exc.is_final else Draft(job, fault=exc)


def fault(exc: Exception) -> RagagentError:
    """Return the mistake that a document made us make, as its owner may read it. The log has it whole."""
    message = exc.message if isinstance(exc, RagagentError) else f"The indexer failed on it ({type(exc).__name__})."
    return RagagentError(message, code="server_error")


class Drafter:
    def __init__(self, database: Database, parser: Parser, embedders: Embedders) -> None:
        self._database = database
        self._parser = parser
        self._embedders = embedders

    async def draft(self, job: JobRow) -> Draft:
        """Parse and cut. Raises what is not the document's: Unavailable, StorageFull, Damaged."""
        with telemetry.span(
            names.INGEST, {names.INGEST_BYTES: job.bytes}, kind="consumer", link=job.traceparent
        ) as span:
            try:
                self.check(job)
                pieces = await anyio.to_thread.run_sync(self._cut, job)
            except MACHINES:
                raise
            except (Conflict, Invalid, NotFound) as exc:  # NotFound: it was deleted since it was taken.
                span.fail(exc)
                return Draft(job, error=exc)
            except Exception as exc:
                log.exception("attempt %d on document %d failed", job.attempts, job.document_id)
                span.fail(exc)
                return Draft(job, fault=fault(exc))
            span.set(names.INGEST_CHUNKS, len(pieces))
            return Draft(job, pieces)

    def check(self, job: JobRow) -> None:
        """Raise Invalid, or Conflict, for a job that is beyond help."""
        if job.attempts > MAX_ATTEMPTS:
            raise Invalid(f"The indexer died {MAX_ATTEMPTS} times on this document.", code="server_error")
        self._embedders.of(job.model, job.dimension, "The store")

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
