"""Documents in: what a worker does with them. It stores and queues in one transaction; the indexer does the rest.

The answer to a write may wait until a search can find what was written. The wait is bounded, and ends early only in
what the reply says: the document is on disk, and queued, before it begins.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import anyio

from ragagent import config, telemetry
from ragagent.engine import editions
from ragagent.engine.admission import Admission
from ragagent.engine.catalog import Catalog, Chunking, find_batch, find_document, find_file
from ragagent.engine.doorbell import Doorbell
from ragagent.errors import Invalid
from ragagent.index.searchers import Searchers
from ragagent.store import documents, files, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Attributes, Batch, Caller, Document, VectorStore

POLL_SECONDS = (0.003, 0.05)  # between two looks at a manifest, growing from the first to the second

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attachment:
    """An uploaded file on its way into a store; no chunking means the store's."""

    file_id: str
    attributes: Attributes = field(default_factory=dict)
    chunking: Chunking | None = None


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A text under the caller's own id; the same id again replaces it."""

    external_id: str
    text: str
    title: str | None = None
    attributes: Attributes = field(default_factory=dict)

    @property
    def filename(self) -> str:
        return self.title or self.external_id


@dataclass(frozen=True, slots=True)
class Written:
    """What a write to one store did. `seq` is its place in the order of writes: a read that asks for it sees it."""

    store: VectorStore
    seq: int
    documents: tuple[Document, ...] = ()


class Ingest:
    def __init__(
        self,
        database: Database,
        searchers: Searchers,
        catalog: Catalog,
        doorbell: Doorbell,
        limits: config.Ingest,
        quota: config.Quota,
    ) -> None:
        self._database = database
        self._searchers = searchers
        self._catalog = catalog
        self._doorbell = doorbell
        self._limits = limits
        self._quota = quota

    async def attach(self, caller: Caller, store_id: str, new: Sequence[Attachment]) -> Written:
        """Add uploaded files to a store. A file that is in it already stays as it is."""
        traceparent = telemetry.traceparent()

        def add(tx: Transaction) -> Written:
            store = self._store(tx, caller, store_id)
            admission = Admission(tx, self._limits, self._quota, store, len(new))
            rows = _attach(tx, caller, store, admission, new, None, traceparent)
            return Written(store, max(row.seq for row in rows), rows)

        return await self._written(add)

    async def attach_batch(self, caller: Caller, store_id: str, new: Sequence[Attachment]) -> tuple[Batch, Written]:
        traceparent = telemetry.traceparent()

        def add(tx: Transaction) -> tuple[Batch, Written]:
            store = self._store(tx, caller, store_id)
            admission = Admission(tx, self._limits, self._quota, store, len(new))
            batch = _same_batch(tx, store, new) or documents.add_batch(tx, store.id)
            rows = _attach(tx, caller, store, admission, new, batch.id, traceparent)
            return batch, Written(store, max(row.seq for row in rows), rows)

        return await self._written(add)

    async def upsert(self, caller: Caller, store_id: str, new: Sequence[NewDocument]) -> Written:
        """Add or replace texts by external id. What is stored already, unchanged, is not stored again.

        Raises Limited and OverQuota, as the other ways in do: see `admission.py`.
        """
        traceparent = telemetry.traceparent()

        def add(tx: Transaction) -> Written:
            store = self._store(tx, caller, store_id)
            admission = Admission(tx, self._limits, self._quota, store, len(new))
            written = [_upsert(tx, caller, store, admission, document, traceparent) for document in new]
            return Written(store, max(seq for _, seq in written), tuple(row for row, _ in written))

        return await self._written(add)

    async def remove(self, caller: Caller, store_id: str, external_ids: Sequence[str]) -> tuple[Written, list[str]]:
        """Erase texts by external id; return the ids that there were. Answers cannot quote them from here on."""

        def erase(tx: Transaction) -> tuple[Written, list[str]]:
            store = self._catalog.find_store(tx, caller, store_id)
            seq, found = store.seq, []
            for external_id in dict.fromkeys(external_ids):
                if living := documents.versions(tx, store.id, external_id):
                    found.append(external_id)
                # What a newer version replaced is seen until that one is published, and has to go as well.
                for row in (*living, *documents.replaced(tx, store.id, external_id)):
                    seq = documents.remove(tx, row)
                    files.discard(tx, row.file_id)
            return Written(store, seq), found

        return await self._written(erase)

    async def detach(self, caller: Caller, store_id: str, file_id: str) -> Written:
        """Take a file out of a store; the file itself stays."""

        def erase(tx: Transaction) -> Written:
            store = self._catalog.find_store(tx, caller, store_id)
            return Written(store, documents.remove(tx, find_document(tx, store, file_id)))

        return await self._written(erase)

    async def set_attributes(self, caller: Caller, store_id: str, file_id: str, attributes: Attributes) -> Written:
        def update(tx: Transaction) -> Written:
            store = self._catalog.find_store(tx, caller, store_id)
            seq = documents.set_attributes(tx, find_document(tx, store, file_id), attributes)
            return Written(store, seq, (find_document(tx, store, file_id),))

        return await self._written(update)

    async def cancel(self, caller: Caller, store_id: str, batch_id: str) -> None:
        def cancel(tx: Transaction) -> None:
            store = self._catalog.find_store(tx, caller, store_id)
            documents.cancel(tx, find_batch(tx, store, batch_id).id)

        await self._written(cancel)

    def ring(self) -> None:
        self._doorbell.ring()

    async def visible(self, store: VectorStore, seq: int, seconds: float) -> bool:
        """Wait until a search sees everything up to `seq`, at most so long; return whether it does.

        Whoever waits long looks again which edition is searched: one that was replaced is not brought up any more.
        """
        deadline = time.monotonic() + seconds
        pause, longest = POLL_SECONDS
        while editions.seq(self._searchers, store) < seq:
            if time.monotonic() + pause > deadline:
                return False
            await anyio.sleep(pause)
            pause = min(pause * 1.2, longest)
            if pause == longest:
                store = await self._database.view(partial(_newest, store))
        return True

    async def _written(self, work: Callable[[Transaction], T]) -> T:
        written = await self._database.update(work)
        self._doorbell.ring()
        return written

    def _store(self, tx: Transaction, caller: Caller, store_id: str) -> VectorStore:
        store = self._catalog.find_store(tx, caller, store_id)
        self._catalog.check_space(store)
        return store


def _newest(store: VectorStore, tx: Transaction) -> VectorStore:
    return stores.get(tx, store.id) or store


def _attach(
    tx: Transaction,
    caller: Caller,
    store: VectorStore,
    admission: Admission,
    new: Sequence[Attachment],
    batch_id: str | None,
    traceparent: str | None,
) -> tuple[Document, ...]:
    rows = {}
    for attachment in new:
        file = find_file(tx, caller, attachment.file_id)
        # A retried request must not fail, and must not ingest twice.
        if found := documents.find(tx, store.id, file.id):
            rows[file.id] = found
            continue
        admission.admit(file.bytes)
        cut = attachment.chunking or Chunking(store.chunk_tokens, store.overlap_tokens)
        rows[file.id] = documents.add(
            tx,
            store_id=store.id,
            file_id=file.id,
            external_id=None,
            batch_id=batch_id,
            attributes=attachment.attributes,
            chunk_tokens=cut.max_tokens,
            overlap_tokens=cut.overlap_tokens,
            traceparent=traceparent,
        )
    return tuple(rows.values())


def _same_batch(tx: Transaction, store: VectorStore, new: Sequence[Attachment]) -> Batch | None:
    """Return the batch that exactly these files came with: whoever tries again waits for that one.

    A second batch would hold none of them, and say at once that it is completed.
    """
    found = [documents.find(tx, store.id, file_id) for file_id in {attachment.file_id for attachment in new}]
    batches = {row.batch_id if row else None for row in found}
    batch_id = batches.pop() if len(batches) == 1 else None
    if batch_id is None or documents.batch_size(tx, batch_id) != len(found):
        return None
    return documents.find_batch(tx, store.id, batch_id)


def _upsert(
    tx: Transaction,
    caller: Caller,
    store: VectorStore,
    admission: Admission,
    new: NewDocument,
    traceparent: str | None,
) -> tuple[Document, int]:
    """Store the text, or only its attributes where the text is there already; return the row and the write's seq."""
    data = new.text.encode()
    living = documents.versions(tx, store.id, new.external_id)
    for newest in living[:1]:
        if documents.is_there(tx, newest, hashlib.sha256(data).hexdigest(), new.filename):
            if documents.same_attributes(newest.attributes, new.attributes):
                return newest, newest.seq
            seq = documents.set_attributes(tx, newest, new.attributes)
            return replace(newest, attributes=new.attributes), seq
    admission.admit(len(data), living)
    file = files.add(tx, caller, filename=new.filename, purpose="assistants", data=data)
    row = documents.add(
        tx,
        store_id=store.id,
        file_id=file.id,
        external_id=new.external_id,
        batch_id=None,
        attributes=new.attributes,
        chunk_tokens=store.chunk_tokens,
        overlap_tokens=store.overlap_tokens,
        traceparent=traceparent,
    )
    return row, row.seq


def check_text(text: str, *, max_chars: int, param: str) -> str:
    """Return the text if it can be a document. Raises Invalid, naming the field."""
    if not text.strip():
        raise Invalid("The text is empty.", param=param)
    if "\x00" in text:
        raise Invalid(f"The text holds a NUL character at offset {text.index(chr(0))}.", param=param)
    if len(text) > max_chars:
        raise Invalid(f"The text has {len(text)} characters; at most {max_chars} are allowed.", param=param)
    return text
