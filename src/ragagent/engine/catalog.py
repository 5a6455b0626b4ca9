"""Vector stores and files, as one caller may see and change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragagent.engine import editions
from ragagent.errors import Forbidden, Invalid, NotFound
from ragagent.index.searchers import Searchers
from ragagent.providers.embedders import Embedders
from ragagent.store import chunks, documents, files, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Batch, Caller, Counts, Document, File, Page, VectorStore


@dataclass(frozen=True, slots=True)
class Chunking:
    max_tokens: int
    overlap_tokens: int


class Catalog:
    def __init__(self, database: Database, searchers: Searchers, embedders: Embedders, chunking: Chunking) -> None:
        self._database = database
        self._searchers = searchers
        self._embedders = embedders
        self.default_chunking = chunking

    # Vector stores

    async def create_store(
        self, caller: Caller, name: str, metadata: Mapping[str, str], chunking: Chunking | None
    ) -> VectorStore:
        if caller.stores is not None:
            raise Forbidden("This API key is bound to its stores and cannot create another.")
        cut = chunking or self.default_chunking

        def create(tx: Transaction) -> VectorStore:
            return stores.add(
                tx,
                tenant=caller.tenant,
                name=name,
                metadata=metadata,
                model=self._embedders.default.model,
                dimension=self._embedders.default.dimension,
                chunk_tokens=cut.max_tokens,
                overlap_tokens=cut.overlap_tokens,
            )

        return await self._database.update(create)

    async def store(self, caller: Caller, name_or_id: str) -> VectorStore:
        """Return the store of that id or name. Raises NotFound also for one that the key may not use."""
        return await self._database.view(lambda tx: self.find_store(tx, caller, name_or_id))

    async def stores_named(self, caller: Caller, names: Sequence[str]) -> list[VectorStore]:
        return await self._database.view(
            lambda tx: [self.find_store(tx, caller, name) for name in dict.fromkeys(names)]
        )

    async def stores(self, caller: Caller, page: Page) -> list[VectorStore]:
        ids = None if caller.stores is None else sorted(caller.stores)
        return await self._database.view(lambda tx: stores.listing(tx, caller.tenant, ids, page))

    async def update_store(
        self, caller: Caller, store_id: str, *, name: str | None, metadata: Mapping[str, str] | None
    ) -> VectorStore:
        def update(tx: Transaction) -> VectorStore:
            row = self.find_store(tx, caller, store_id)
            stores.update(tx, row.id, name=name, metadata=metadata)
            return self.find_store(tx, caller, row.id)

        return await self._database.update(update)

    async def delete_store(self, caller: Caller, store_id: str) -> tuple[VectorStore, int]:
        def delete(tx: Transaction) -> tuple[VectorStore, int]:
            row = self.find_store(tx, caller, store_id)
            return row, stores.mark_deleted(tx, row.id)

        return await self._database.update(delete)

    async def counts(self, rows: Sequence[VectorStore]) -> list[Counts]:
        """Return each store's document counts; a document counts as completed once a search can find it."""
        seen = {row.id: editions.seq(self._searchers, row) for row in rows}
        return await self._database.view(lambda tx: [stores.counts(tx, row.id, seen[row.id]) for row in rows])

    async def visible_seq(self, store_id: str) -> int:
        """Return up to where a search of the store sees now."""
        row = await self._database.view(lambda tx: stores.get(tx, store_id))
        return 0 if row is None else editions.seq(self._searchers, row)

    # Files

    async def add_file(self, caller: Caller, filename: str, purpose: str, data: bytes, *, is_retry: bool) -> File:
        if not data:
            raise Invalid(f"File '{filename}' is empty.", param="file")

        def add(tx: Transaction) -> File:
            earlier = (
                files.find_retried(tx, caller, filename=filename, purpose=purpose, data=data) if is_retry else None
            )
            return earlier or files.add(tx, caller, filename=filename, purpose=purpose, data=data)

        return await self._database.update(add)

    async def file(self, caller: Caller, file_id: str) -> File:
        return await self._database.view(lambda tx: find_file(tx, caller, file_id))

    async def files(self, caller: Caller, purpose: str | None, page: Page) -> list[File]:
        return await self._database.view(lambda tx: files.listing(tx, caller, purpose, page))

    async def file_content(self, caller: Caller, file_id: str) -> tuple[File, bytes]:
        def load(tx: Transaction) -> tuple[File, bytes]:
            row = find_file(tx, caller, file_id)
            return row, files.content(tx, row.id)

        return await self._database.view(load)

    async def delete_file(self, caller: Caller, file_id: str) -> File:
        """Erase the file everywhere: no store of the tenant can quote it any more."""

        def delete(tx: Transaction) -> File:
            row = find_file(tx, caller, file_id)
            if not all(caller.may_use(document.store_id) for document in documents.of_file(tx, row.id)):
                raise Forbidden(f"File '{file_id}' is also in a store that this API key may not use.")
            documents.remove_file(tx, row.id)
            return row

        return await self._database.update(delete)

    # Files in vector stores

    async def document(self, caller: Caller, store_id: str, file_id: str) -> Document:
        return await self._database.view(
            lambda tx: find_document(tx, self.find_store(tx, caller, store_id), file_id),
        )

    async def current(self, written: Sequence[Document]) -> list[Document]:
        """Return what has become of rows that the caller wrote: as they were, where they were deleted meanwhile."""
        return await self._database.view(
            lambda tx: [documents.find(tx, row.store_id, row.file_id) or row for row in written]
        )

    async def documents(
        self, caller: Caller, store_id: str, page: Page, *, batch_id: str | None = None, status: str | None = None
    ) -> list[Document]:
        def load(tx: Transaction) -> list[Document]:
            store = self.find_store(tx, caller, store_id)
            if batch_id:
                find_batch(tx, store, batch_id)
            seq = editions.seq(self._searchers, store)
            return documents.listing(tx, store.id, seq, page, batch_id=batch_id, status=status)

        return await self._database.view(load)

    async def document_text(self, caller: Caller, store_id: str, file_id: str) -> tuple[Document, str, list[str]]:
        """Return the document, its filename and the texts of its chunks."""

        def load(tx: Transaction) -> tuple[Document, str, list[str]]:
            document = find_document(tx, self.find_store(tx, caller, store_id), file_id)
            filename = files.find(tx, caller, file_id)
            texts = [text for _, _, text in chunks.of_document(tx, document.id)]
            return document, filename.filename if filename else "", texts

        return await self._database.view(load)

    async def batch(self, caller: Caller, store_id: str, batch_id: str) -> tuple[Batch, Counts]:
        def load(tx: Transaction) -> tuple[Batch, Counts]:
            store = self.find_store(tx, caller, store_id)
            batch = find_batch(tx, store, batch_id)
            return batch, stores.batch_counts(tx, batch.id, editions.seq(self._searchers, store))

        return await self._database.view(load)

    # What the others build on

    def find_store(self, tx: Transaction, caller: Caller, name_or_id: str) -> VectorStore:
        row = stores.find(tx, caller.tenant, name_or_id)
        if row is None or not caller.may_use(row.id):
            raise NotFound(f"Vector store '{name_or_id}' does not exist.", param="vector_store_id")
        return row

    def check_space(self, store: VectorStore) -> None:
        """Refuse a store whose vectors no configured embedder can be compared with. Raises Conflict."""
        self._embedders.of(store.model, store.dimension, f"Vector store '{store.name or store.id}'")

    async def unserved(self) -> list[str]:
        """Return the names of the stores that `check_space` refuses."""

        def load(tx: Transaction) -> list[str]:
            unserved = (space for space in stores.spaces(tx) if self._embedders.find(*space) is None)
            return [name for space in unserved for name in stores.names_in(tx, space)]

        return await self._database.view(load)


def find_file(tx: Transaction, caller: Caller, file_id: str) -> File:
    row = files.find(tx, caller, file_id)
    if row is None:
        raise NotFound(f"File '{file_id}' does not exist.", param="file_id")
    return row


def find_document(tx: Transaction, store: VectorStore, file_id: str) -> Document:
    row = documents.find(tx, store.id, file_id)
    if row is None:
        raise NotFound(f"File '{file_id}' is not in vector store '{store.id}'.", param="file_id")
    return row


def find_batch(tx: Transaction, store: VectorStore, batch_id: str) -> Batch:
    row = documents.find_batch(tx, store.id, batch_id)
    if row is None:
        raise NotFound(f"File batch '{batch_id}' is not in vector store '{store.id}'.", param="batch_id")
    return row
