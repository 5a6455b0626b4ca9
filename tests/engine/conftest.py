"""The whole engine over real files: what a worker and an indexer are made of, without the processes around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fakes import BagOfWords, InProcessParser, Scripted
from ragagent import config
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.engine.answering.answer import Answerer, Question
from ragagent.engine.catalog import Catalog, Chunking
from ragagent.engine.doorbell import Doorbell
from ragagent.engine.indexing.indexer import Indexer
from ragagent.engine.ingest import Attachment, Ingest, NewDocument, Written
from ragagent.engine.publishing.publisher import Publisher
from ragagent.engine.publishing.reembed import Reembedder
from ragagent.engine.queue import Queue
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.retrieve import Retrieval, Retriever
from ragagent.index.searchers import Searchers
from ragagent.providers.embedders import Embedders
from ragagent.store.database import Database
from ragagent.types import Attributes, Caller, Document, File, VectorStore

CALLER = Caller()


class World:
    """Everything wired on one directory. Short verbs for what most tests do; the parts are there for the rest."""

    def __init__(self, root: Path, *, cached: bool = True) -> None:
        self.root = root
        self.embedder = BagOfWords()
        self.other_embedder = BagOfWords(16, "small-bag")
        self.generator = Scripted("Nothing.")
        self.parser = InProcessParser()
        self.is_leaving = False
        self.stack = AsyncExitStack()
        self.database = Database.open(root / "ragagent.db")
        self.stack.callback(self.database.close)
        self.searchers = Searchers(root / "index", ef_search=64)
        self.stack.callback(self.searchers.close)
        self.cache = TieredCache(LocalCache(4 * config.MIB), enabled=cached)
        self.embedders = Embedders(self.embedder, [self.other_embedder])
        self.catalog = Catalog(self.database, self.searchers, self.embedders, Chunking(400, 0))
        doorbell = Doorbell(root / "indexer.sock")
        self.stack.callback(doorbell.close)
        limits, quota = config.Ingest(), config.Quota()
        self.ingest = Ingest(self.database, self.searchers, self.catalog, doorbell, limits, quota)
        self.queue = Queue(self.database, self.searchers, self.catalog, doorbell, limits, quota)
        self.retriever = self.make_retriever()
        self.answerer = self.make_answerer()
        self.start_indexer()

    def make_retriever(self, **settings: Any) -> Retriever:
        retrieval = config.Retrieval(**settings)
        return Retriever(self.database, self.searchers, self.embedders, self.cache, retrieval, config.Cache())

    def make_answerer(self, **settings: Any) -> Answerer:
        retrieval = config.Retrieval(**{"min_evidence": 0.0, **settings})
        return Answerer(self.retriever, self.generator, self.cache, retrieval, life=Life(60.0, negative=60.0))

    # The indexer

    def start_indexer(self, **settings: Any) -> None:
        self.publisher = Publisher(self.database, self.root / "index", config.Ingest(**settings))
        self.reembedder = Reembedder(self.database, self.embedders)
        self.indexer = Indexer(
            self.database, self.publisher, self.parser, self.embedders, is_leaving=lambda: self.is_leaving
        )

    async def restart_indexer(self, **settings: Any) -> None:
        """End the indexer between two steps, which is all that a kill -9 can look like from outside, and start anew."""
        await self.publisher.close()
        self.start_indexer(**settings)

    async def settle(self) -> None:
        """Let the indexer do all that there is to do."""
        for _ in range(500):
            if not await self.indexer.step():
                return
        raise AssertionError("the indexer never comes to rest")

    # Writes

    async def store(self, name: str = "docs") -> VectorStore:
        return await self.catalog.create_store(CALLER, name, {}, None)

    async def upsert(
        self, external_id: str, text: str, store: str = "docs", attributes: Attributes | None = None
    ) -> Written:
        return await self.ingest.upsert(CALLER, store, [NewDocument(external_id, text, attributes=attributes or {})])

    async def upload(self, text: str | bytes, filename: str = "a.txt") -> File:
        data = text if isinstance(text, bytes) else text.encode()
        return await self.catalog.add_file(CALLER, filename, "assistants", data, is_retry=False)

    async def attach(self, text: str | bytes, filename: str = "a.txt", store: str = "docs") -> Document:
        file = await self.upload(text, filename)
        written = await self.ingest.attach(CALLER, store, [Attachment(file.id)])
        return written.documents[0]

    async def document(self, row: Document) -> Document:
        return await self.catalog.document(CALLER, row.store_id, row.file_id)

    # Reads

    async def query(self, text: str, stores: Sequence[str] = ("docs",), **fields: Any) -> Query:
        rows = await self.catalog.stores_named(CALLER, stores)
        return Query(text, tuple(rows), **{"limit": 10, **fields})

    async def retrieve(self, text: str, stores: Sequence[str] = ("docs",), **fields: Any) -> Retrieval:
        return await self.retriever.retrieve(CALLER, await self.query(text, stores, **fields))

    async def search(self, text: str, stores: Sequence[str] = ("docs",), **fields: Any) -> list[str]:
        """Return the texts that are found, best first."""
        return [item.text for item in (await self.retrieve(text, stores, **fields)).evidence]

    async def question(self, text: str, **fields: Any) -> Question:
        return Question(await self.query(text), **fields)

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.indexer.close()
        await self.publisher.close()
        await self.cache.aclose()
        await self.stack.aclose()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as opened:
        yield opened
