"""From a question to evidence, by way of the cache: a hit needs its text only, a miss is searched for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio.to_thread
import numpy as np

from ragagent import names, telemetry
from ragagent.cache import keys
from ragagent.cache.fetched import Tier
from ragagent.cache.life import Life
from ragagent.cache.tiered import TieredCache
from ragagent.config import Cache as CacheSettings
from ragagent.config import Retrieval as Settings
from ragagent.engine import editions
from ragagent.engine.retrieval.found import Found
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.search import Search, timed
from ragagent.engine.retrieval.sieve import Sieve
from ragagent.errors import Invalid, NotFound
from ragagent.index.searchers import Searchers
from ragagent.providers.base import Embedder
from ragagent.providers.embedders import Embedders
from ragagent.store import stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, EmbeddingSpace, Evidence, VectorStore


@dataclass(frozen=True, slots=True)
class Retrieval:
    evidence: tuple[Evidence, ...]
    found: Found
    tier: Tier
    timings: Mapping[str, float] = field(default_factory=dict)  # milliseconds by stage


class Retriever:
    def __init__(
        self,
        database: Database,
        searchers: Searchers,
        embedders: Embedders,
        cache: TieredCache,
        settings: Settings,
        lifetimes: CacheSettings,
    ) -> None:
        self._database = database
        self._searchers = searchers
        self._embedders = embedders
        self._cache = cache
        self._settings = settings
        self._lifetimes = lifetimes
        self._search = Search(database, searchers, Sieve(database, lifetimes.filter_bytes), settings)

    def versions(self, stores: Sequence[VectorStore]) -> list[tuple[str, int, int]]:
        """Return what the caches key on: each store's edition and last write, and how much a search sees by now.

        Both numbers: the first changes when a delete is acknowledged, the second when a write becomes visible. An
        edition has one model, and its name never comes back.
        """
        return [(store.index, store.seq, editions.seq(self._searchers, store)) for store in stores]

    async def retrieve(self, caller: Caller, query: Query) -> Retrieval:
        """Return the evidence for a question, best first. Raises Invalid, Conflict, Upstream, Unavailable."""
        self._check(query)
        while True:
            try:
                return await self._retrieve(caller, query)
            except editions.Moved:
                query = dataclasses.replace(query, stores=await self._database.view(partial(_as_now, query.stores)))

    async def retrieve_together(self, caller: Caller, queries: Sequence[Query]) -> list[Retrieval]:
        """Return the evidence for several questions to the same stores, all in one state of them. Raises as `retrieve`.

        One after the other, a text that is replaced between two of them would be found in both its versions. The cache
        answers for one question at a time, so it is only asked for one.
        """
        if len(queries) == 1:
            return [await self.retrieve(caller, queries[0])]
        for query in queries:
            self._check(query)
        while True:
            timings: list[dict[str, float]] = [{} for _ in queries]
            vectors = [await self._vectors(query, times) for query, times in zip(queries, timings, strict=True)]
            try:
                found = await anyio.to_thread.run_sync(self._search.together, queries, vectors, timings)
            except editions.Moved:
                rows = await self._database.view(partial(_as_now, queries[0].stores))
                queries = [dataclasses.replace(query, stores=rows) for query in queries]
                continue
            return [
                Retrieval(_good_enough(evidence, query), one, "bypass", times)
                for query, (one, evidence), times in zip(queries, found, timings, strict=True)
            ]

    async def _retrieve(self, caller: Caller, query: Query) -> Retrieval:
        timings: dict[str, float] = {}
        versions = self.versions(query.stores)
        key = keys.retrieval(caller.tenant, versions, models(query.stores), query.text, self.params(query))
        searched: list[tuple[Found, list[Evidence]]] = []  # by this very call: what the cache gives may be another's

        async def compute() -> dict[str, Any]:
            searched.append(await self._searched(query, timings))
            return searched[-1][0].pack()

        with telemetry.span(_span_name(query), _span_attributes(query), kind="client"):
            # Not shared: a search takes two milliseconds, and its vector, which may take longer, is shared by itself.
            # Not tagged: what is found is kept as numbers of chunks, and read from the store every time.
            life = Life.of(self._lifetimes, self._lifetimes.retrieval_seconds)
            fetched = await self._cache.fetch(key, compute, life)
            if searched:
                found, evidence = searched[-1]
            else:
                found = Found.unpack(fetched.value)
                with timed(timings, "text"):
                    evidence = await self._database.view(lambda tx: found.evidence(tx, query.limit))
        return Retrieval(_good_enough(evidence, query), found, fetched.tier, timings)

    def params(self, query: Query) -> dict[str, Any]:
        """Return what decides, besides the text and the stores, what is found: the caches key on it.

        Settings as they apply, not as they were asked for: the next release may have others and share the cache.
        """
        return {
            "filter": None if query.filter is None else repr(query.filter),
            "fusion": query.fusion or self._settings.fusion,
            "dense_weight": self._search.dense_weight(query),
            "candidates": self._settings.candidates,
            "ef_search": self._settings.ef_search,
        }

    def embedder(self, rows: Sequence[VectorStore]) -> Embedder | None:
        """Return whose vectors all of these stores have; None: several models', or of one that is not configured."""
        spaces = {store.space for store in rows}
        return self._embedders.find(*spaces.pop()) if len(spaces) == 1 else None

    async def embed(self, query: str, embedder: Embedder) -> np.ndarray:
        """Return the query's vector, float32 (dimension,), through the cache."""

        async def compute() -> bytes:
            with telemetry.span(names.EMBEDDINGS.format(model=embedder.model), kind="client"):
                vectors = await embedder.embed([query])
                return bytes(vectors[0].astype("<f4").tobytes())

        key = keys.embedding(str(EmbeddingSpace(embedder.model, embedder.dimension)), query)
        life = Life.of(self._lifetimes, self._lifetimes.embedding_seconds)
        # The built-in model takes a fifth of a millisecond; to agree with the other processes would take twice as long.
        fetched = await self._cache.fetch(key, compute, life, shared=embedder.is_remote)
        return np.frombuffer(fetched.value, dtype="<f4")

    async def _searched(self, query: Query, timings: dict[str, float]) -> tuple[Found, list[Evidence]]:
        vectors = await self._vectors(query, timings)
        (found,) = await anyio.to_thread.run_sync(self._search.together, [query], [vectors], [timings])
        return found

    async def _vectors(self, query: Query, timings: dict[str, float]) -> Mapping[EmbeddingSpace, np.ndarray]:
        """Return the question's vector of each model that its stores have."""
        vectors: dict[EmbeddingSpace, np.ndarray] = {}
        with timed(timings, "embed"):
            for store in query.stores:
                if store.space not in vectors:
                    embedder = self._embedders.of(*store.space, f"Vector store '{store.name or store.id}'")
                    vectors[store.space] = await self.embed(query.text, embedder)
        return vectors

    def _check(self, query: Query) -> None:
        if not query.text.strip():
            raise Invalid("The query is empty.", param="query")
        if len(query.text) > self._settings.max_query_chars:
            raise Invalid(
                f"The query has {len(query.text)} characters; at most {self._settings.max_query_chars} are allowed.",
                param="query",
            )
        if len(query.stores) > self._settings.max_stores:
            raise Invalid(
                f"{len(query.stores)} vector stores would be searched; at most {self._settings.max_stores} are "
                "allowed. Name those to search.",
                param="vector_store_ids",
            )


def _good_enough(evidence: Sequence[Evidence], query: Query) -> tuple[Evidence, ...]:
    return tuple(item for item in evidence if item.score >= query.score_threshold)


def models(rows: Sequence[VectorStore]) -> str:
    """Return what the caches key on beside the versions: whose vectors are searched."""
    return ",".join(sorted({str(store.space) for store in rows}))


def _as_now(rows: Sequence[VectorStore], tx: Transaction) -> tuple[VectorStore, ...]:
    """Return the stores' rows as they are now. Raises NotFound for one that is gone."""
    found = [stores.get(tx, row.id) for row in rows]
    for row, store in zip(rows, found, strict=True):
        if store is None:
            raise NotFound(f"Vector store '{row.id}' does not exist.", param="vector_store_id")
    return tuple(store for store in found if store is not None)


def _span_name(query: Query) -> str:
    return names.RETRIEVAL.format(store=query.stores[0].id if len(query.stores) == 1 else "")


def _span_attributes(query: Query) -> dict[str, str | int]:
    stores = ",".join(store.id for store in query.stores)
    return {names.GEN_AI_OPERATION: "retrieval", names.GEN_AI_DATA_SOURCE: stores, names.GEN_AI_TOP_K: query.limit}
