"""From a question to evidence: embed, search both legs, fuse, and read the text last.

The text is read from SQLite after the search, so a deleted document is gone from answers at once, whatever an index or
a cache still remembers of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import anyio.to_thread
import numpy as np

from ragagent import names, telemetry, text
from ragagent.cache import keys
from ragagent.cache.tiered import TieredCache
from ragagent.config import Cache as CacheSettings
from ragagent.config import Retrieval as Settings
from ragagent.engine import editions
from ragagent.engine.filtered import Filtered, check_filter
from ragagent.engine.found import Found
from ragagent.engine.sieve import Sieve
from ragagent.errors import Invalid, NotFound
from ragagent.index.fusion import fuse
from ragagent.index.searcher import Searcher
from ragagent.index.searchers import Searchers
from ragagent.providers.base import Embedder
from ragagent.providers.embedders import Embedders
from ragagent.store import stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, EmbeddingSpace, Evidence, Filter, Hit, VectorStore

Tier = Literal["l1", "l2", "miss", "bypass"]


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, where, and how. `None` settings mean the configured ones."""

    text: str
    stores: tuple[VectorStore, ...]
    limit: int
    filter: Filter | None = None
    fusion: Literal["convex", "rrf"] | None = None
    dense_weight: float | None = None
    score_threshold: float = 0.0


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
        self._filtered = Filtered(database, Sieve(database, lifetimes.filter_bytes), settings.candidates)

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
                found = await anyio.to_thread.run_sync(self._search_together, queries, vectors, timings)
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
            searched.append(await self._search(query, timings))
            return searched[-1][0].pack()

        with telemetry.span(_span_name(query), _span_attributes(query), kind="client"):
            fetched = await self._cache.fetch(key, compute, ttl=self._lifetimes.retrieval_seconds)
            if searched:
                found, evidence = searched[-1]
            else:
                found = Found.unpack(fetched.value)
                with _timed(timings, "text"):
                    evidence = await self._database.view(lambda tx: found.evidence(tx, query.limit))
        return Retrieval(_good_enough(evidence, query), found, fetched.tier, timings)

    def params(self, query: Query) -> dict[str, Any]:
        """Return what decides, besides the text and the stores, what is found: the caches key on it.

        Settings as they apply, not as they were asked for: the next release may have others and share the cache.
        """
        return {
            "filter": None if query.filter is None else repr(query.filter),
            "fusion": query.fusion or self._settings.fusion,
            "dense_weight": self._dense_weight(query),
            "candidates": self._settings.candidates,
            "ef_search": self._settings.ef_search,
        }

    async def embed(self, query: str, embedder: Embedder) -> np.ndarray:
        """Return the query's vector, float32 (dimension,), through the cache."""

        async def compute() -> bytes:
            with telemetry.span(names.EMBEDDINGS.format(model=embedder.model), kind="client"):
                vectors = await embedder.embed([query])
                return bytes(vectors[0].astype("<f4").tobytes())

        key = keys.embedding(f"{embedder.model}/{embedder.dimension}", query)
        fetched = await self._cache.fetch(key, compute, ttl=self._lifetimes.embedding_seconds)
        return np.frombuffer(fetched.value, dtype="<f4")

    async def _search(self, query: Query, timings: dict[str, float]) -> tuple[Found, list[Evidence]]:
        vectors = await self._vectors(query, timings)
        (found,) = await anyio.to_thread.run_sync(self._search_together, [query], [vectors], [timings])
        return found

    async def _vectors(self, query: Query, timings: dict[str, float]) -> Mapping[EmbeddingSpace, np.ndarray]:
        """Return the question's vector of each model that its stores have."""
        vectors: dict[EmbeddingSpace, np.ndarray] = {}
        with _timed(timings, "embed"):
            for store in query.stores:
                if store.space not in vectors:
                    embedder = self._embedders.of(*store.space, f"Vector store '{store.name or store.id}'")
                    vectors[store.space] = await self.embed(query.text, embedder)
        return vectors

    def _search_together(
        self,
        queries: Sequence[Query],
        vectors: Sequence[Mapping[EmbeddingSpace, np.ndarray]],
        timings: Sequence[dict[str, float]],
    ) -> list[tuple[Found, list[Evidence]]]:
        """Search for each query, all of the same stores, in one state of them, and read the text.

        That in the thread that we are in: the way to another takes as long as reading.
        """
        results = []
        with ExitStack() as pins:
            rows = queries[0].stores
            searchers = {store.id: editions.pin(pins, self._database, self._searchers, store) for store in rows}
            for query, of_query, times in zip(queries, vectors, timings, strict=True):
                with _timed(times, "search"):
                    found = self._search_stores(query, of_query, searchers)
                with _timed(times, "text"), self._database.read() as tx:
                    results.append((found, found.evidence(tx, query.limit)))
        return results

    def _search_stores(
        self, query: Query, vectors: Mapping[EmbeddingSpace, np.ndarray], searchers: Mapping[str, Searcher]
    ) -> Found:
        """Search every store at one moment of it, and fuse the legs of all: raw scores of one model compare."""
        if query.filter is not None:
            with self._database.read() as tx:
                check_filter(tx, [store.id for store in query.stores], query.filter)
        terms = list(dict.fromkeys(text.tokens(query.text)))
        dense: dict[EmbeddingSpace, list[tuple[int, float]]] = {space: [] for space in vectors}
        lexical: list[tuple[int, float]] = []
        owner: dict[int, str] = {}
        for store in query.stores:
            vector = vectors[store.space]
            legs = self._filtered.search(store.id, searchers[store.id], query.filter, vector, terms)
            dense[store.space] += legs.dense
            lexical += legs.lexical
            owner |= dict.fromkeys((chunk_id for chunk_id, _ in (*legs.dense, *legs.lexical)), store.id)
        frequencies = _frequencies(searchers.values(), terms)
        hits = self._fuse(query, dense, lexical)
        return Found(
            hits=tuple((owner[hit.chunk_id], hit) for hit in hits),
            seqs={store_id: searcher.seq for store_id, searcher in searchers.items()},
            generations={store_id: searcher.generation for store_id, searcher in searchers.items()},
            frequencies=frequencies,
            chunks=sum(searcher.rows for searcher in searchers.values()),
        )

    def _fuse(
        self, query: Query, dense: Mapping[EmbeddingSpace, list[tuple[int, float]]], lexical: list[tuple[int, float]]
    ) -> list[Hit]:
        hits = fuse(
            _comparable(list(dense.values())),
            lexical,
            method=query.fusion or self._settings.fusion,
            dense_weight=self._dense_weight(query),
            # All candidates: chunks that turn out to be gone leave their place to the next.
            limit=2 * self._settings.candidates * len(query.stores),
        )
        cosines = dict(itertools.chain.from_iterable(dense.values()))
        return [dataclasses.replace(hit, dense=cosines.get(hit.chunk_id)) for hit in hits] if len(dense) > 1 else hits

    def _dense_weight(self, query: Query) -> float:
        return self._settings.dense_weight if query.dense_weight is None else query.dense_weight

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
    return ",".join(sorted({f"{store.model}/{store.dimension}" for store in rows}))


def _comparable(legs: Sequence[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Lay the dense legs of several models end to end. Their cosines do not compare: each leg's best counts as one."""
    if len(legs) == 1:
        return legs[0]
    bests = [max((score for _, score in leg), default=0.0) for leg in legs]
    return [
        (chunk_id, score / best) for leg, best in zip(legs, bests, strict=True) if best > 0.0 for chunk_id, score in leg
    ]


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


def _frequencies(searchers: Any, terms: Sequence[str]) -> dict[str, int]:
    total = dict.fromkeys(terms, 0)
    for searcher in searchers:
        for term, frequency in searcher.doc_freqs(terms).items():
            total[term] += frequency
    return total


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        timings[stage] = seconds * 1000
        telemetry.record(names.RETRIEVAL_DURATION, seconds, {names.RETRIEVAL_STAGE: stage})
