"""An import: the lines of an export into a data directory, whether a server runs on it or not, as often as one likes.

A document goes in whole or not at all: it waits for its last chunk, then for its batch, and a batch is one transaction,
small enough that no upload waits long for it. What is there already is passed over, so whoever was killed runs the same
again. Vectors are taken over where the store has the model that made them; everything else is queued for the indexer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ragagent.config import Config
from ragagent.engine.doorbell import Doorbell
from ragagent.engine.keeping.transfer import lines
from ragagent.engine.keeping.transfer.lines import DocumentLine, StoreLine
from ragagent.errors import Conflict, Invalid, Unavailable
from ragagent.store import stores, transfer
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database, Transaction
from ragagent.types import EmbeddingSpace, VectorStore

BATCH_DOCUMENTS = 32
BATCH_BYTES = 2 * 1024 * 1024  # of texts and vectors; one document may be more
MAX_FAILURES = 100  # that are told one by one


@dataclass(slots=True)
class Report:
    """What became of the lines. `failures` are `(line number, reason)`, the first of `failed` documents or lines."""

    stores: int = 0  # made
    added: int = 0  # with their vectors
    queued: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def fail(self, number: int, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append((number, reason))


@dataclass(slots=True)
class Pending:
    """A document whose chunks are being read."""

    number: int
    line: DocumentLine
    target: VectorStore
    takes_vectors: bool
    pieces: list[NewChunk] = field(default_factory=list)
    read: int = 0

    @property
    def bytes(self) -> int:
        return len(self.line.moved.data) + sum(len(piece.text) + piece.vector.nbytes for piece in self.pieces)

    @property
    def has_vectors(self) -> bool:
        return self.read > 0 and len(self.pieces) == self.read


class Intake:
    """One import. `space` is what the server's embedder makes; `into` is the store to use instead of the one named."""

    def __init__(
        self, database: Database, space: EmbeddingSpace, *, into: str | None, max_chars: int, ring: Callable[[], None]
    ) -> None:
        self._database = database
        self._space = space
        self._into = into
        self._max_chars = max_chars
        self._ring = ring
        self._sources: dict[str, StoreLine] = {}
        self._targets: dict[str, VectorStore] = {}
        self._pending: Pending | None = None
        self._skips_chunks = False  # those of a document that was refused already
        self._batch: list[Pending] = []
        self._expects_end = False
        self.report = Report()

    def run(self, source: Iterable[bytes]) -> Report:
        """Take in all lines. What is wrong with one is in the report, and the rest goes on.

        Raises Conflict when a store cannot take what comes, StorageFull, Unavailable: what was taken in until then
        stays, and the same import goes on from there.
        """
        number = 0  # also where there is no line at all
        for number, line in enumerate(source, start=1):
            if line.strip():
                try:
                    self._take(number, lines.decoded(line))
                except Invalid as exc:
                    self._refuse(number, exc.message)
        self._close()
        self._flush()
        if self._expects_end:
            self.report.fail(number, "the export ends before its last line: it was cut off")
        return self.report

    def _take(self, number: int, fields: Mapping[str, Any]) -> None:
        match fields["type"]:
            case "chunk":
                self._chunk(fields)
                return
            case "export":
                self._expects_end = True
                if fields.get("format") != lines.FORMAT:
                    raise Conflict(f"The export has format {fields.get('format')}; this version reads {lines.FORMAT}.")
            case "store":
                self._close()
                self._store(lines.store(fields))
            case "document":
                self._close()
                self._pending = self._document(number, fields)
            case "end":
                self._close()
                self._expects_end = False
            case other:
                raise Invalid(f"field 'type' is '{other}'")

    def _store(self, line: StoreLine) -> None:
        if self._into is not None and self._sources.keys() - {line.id}:
            raise Conflict("The export holds several stores; one name cannot stand for all of them.")
        self._sources[line.id] = line
        self._targets[line.id] = self._database_store(line)

    def _database_store(self, line: StoreLine) -> VectorStore:
        with self._database.write() as tx:
            found = self._found(tx, line)
            if found is not None:
                return found
            self.report.stores += 1
            return transfer.add_store(
                tx,
                line.id if self._into is None else None,
                line.created_at,
                tenant=line.tenant,
                name=line.name if self._into is None else self._into,
                metadata=line.metadata,
                model=self._space.model,
                dimension=self._space.dimension,
                chunk_tokens=line.chunk_tokens,
                overlap_tokens=line.overlap_tokens,
            )

    def _found(self, tx: Transaction, line: StoreLine) -> VectorStore | None:
        if self._into is not None:
            return stores.find(tx, line.tenant, self._into)
        return stores.find(tx, line.tenant, line.id) or (stores.find(tx, line.tenant, line.name) if line.name else None)

    def _document(self, number: int, fields: Mapping[str, Any]) -> Pending:
        source = self._sources.get(str(fields.get("store")))
        if source is None:
            raise Invalid("field 'store' must be the id of a store that stands before it", param="store")
        target = self._targets[source.id]
        takes_vectors = (target.model, target.dimension) == (source.model, source.dimension)
        return Pending(number, lines.document(fields, source, max_chars=self._max_chars), target, takes_vectors)

    def _chunk(self, fields: Mapping[str, Any]) -> None:
        if self._skips_chunks:
            return
        pending = self._pending
        if pending is None:
            raise Invalid("it is a chunk, and no document stands before it")
        if pending.takes_vectors:
            piece = lines.chunk(fields, pending.target.dimension, pending.read)
            if piece is not None:
                pending.pieces.append(piece)
        pending.read += 1

    def _refuse(self, number: int, reason: str) -> None:
        """Note what is wrong with a line, and take in nothing of the document that it belongs to."""
        self.report.fail(number, reason)
        if self._pending is not None and self._pending.line.chunks == self._pending.read:
            self._close()  # It has all its chunks: the line is not of this one.
        self._pending = None
        self._skips_chunks = True

    def _close(self) -> None:
        """The document has all its chunks: put it into the batch, or note why not."""
        pending, self._pending = self._pending, None
        self._skips_chunks = False
        if pending is None:
            return
        if pending.line.chunks not in (None, pending.read):
            self.report.fail(pending.number, f"the document has {pending.read} of its {pending.line.chunks} chunks")
            return
        self._batch.append(pending)
        if len(self._batch) >= BATCH_DOCUMENTS or sum(one.bytes for one in self._batch) >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Put the batch in, in one transaction, and have it published."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        with self._database.write() as tx:
            began = time.monotonic()
            for pending in batch:
                self._put(tx, pending)
        self._ring()
        # SQLite has one writer, and who waits for it looks now and then: leave it to others for as long as it was ours.
        time.sleep(time.monotonic() - began)

    def _put(self, tx: Transaction, pending: Pending) -> None:
        target = stores.find(tx, pending.target.tenant, pending.target.id)
        if target is None:
            raise Conflict(f"Store '{pending.target.name or pending.target.id}' was deleted meanwhile.")
        space = target.space
        # Looked at again: the store may have got another model since.
        pieces = pending.pieces if pending.has_vectors and space == pending.target.space else None
        if pieces is None and space != self._space:
            raise Conflict(
                f"Store '{target.name or target.id}' holds vectors of '{space.model}' ({space.dimension}), line "
                f"{pending.number} has none, and the configured embedder, which is to make them, is "
                f"'{self._space.model}' ({self._space.dimension}). Name the server's configuration with --config."
            )
        try:
            is_new = transfer.put(tx, target, pending.line.moved, pieces)
        except Conflict as exc:
            self.report.fail(pending.number, exc.message)
            return
        if not is_new:
            self.report.unchanged += 1
        elif pieces is None:
            self.report.queued += 1
        else:
            self.report.added += 1


def take_in(settings: Config, source: Iterable[bytes], into: str | None = None) -> Report:
    """Take the lines into the data directory of `settings`, made if there is none. Raises as `Intake.run` does."""
    data = settings.data
    try:
        data.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise Unavailable(f"Data directory '{data.dir}' cannot be created: {exc.strerror}.") from exc
    space = EmbeddingSpace(settings.embedder.model, settings.embedder.dimension)
    with closing(Database.open(data.database)) as database, closing(Doorbell(data.doorbell)) as bell:
        return Intake(database, space, into=into, max_chars=settings.ingest.max_text_chars, ring=bell.ring).run(source)
