"""From a question to evidence: embed, search both legs, fuse, and read the text last.

The text is read from SQLite after the search, so a deleted document is gone from answers at once, whatever an index or
a cache still remembers of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio.to_thread
import numpy as np

from ragagent import names, telemetry, text
from ragagent.cache import keys
from ragagent.cache.tiered import TieredCache
from ragagent.config import Cache as CacheSettings
from ragagent.config import Retrieval as Settings
from ragagent.engine.sieve import Sieve
from ragagent.errors import Invalid
from ragagent.index.fusion import fuse
from ragagent.index.searcher import Legs, Searcher
from ragagent.index.searchers import Searchers
from ragagent.providers.base import Embedder
from ragagent.store import attributes, chunks, filters
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, Evidence, Filter, Hit, VectorStore

SHOWN_KEYS = 20

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
class Found:
    """Hits in rank order with their stores, and what each store's searcher showed then: what the cache keeps."""

    hits: tuple[tuple[str, Hit], ...]
    seqs: Mapping[str, int]
    generations: Mapping[str, int]
    frequencies: Mapping[str, int]  # in how many chunks each token of the question stands
    chunks: int  # that were searched


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
        embedder: Embedder,
        cache: TieredCache,
        settings: Settings,
        lifetimes: CacheSettings,
    ) -> None:
        self._database = database
        self._searchers = searchers
        self._embedder = embedder
        self._cache = cache
        self._settings = settings
        self._lifetimes = lifetimes
        self._sieve = Sieve(database, lifetimes.filter_bytes)

    def versions(self, stores: Sequence[VectorStore]) -> list[tuple[str, int, int]]:
        """Return what the caches key on: each store's last write, and how much of it a search sees by now.

        Both numbers: the first changes when a delete is acknowledged, the second when a write becomes visible.
        """
        return [(store.id, store.seq, self._searchers.seq(store.id)) for store in stores]

    async def retrieve(self, caller: Caller, query: Query) -> Retrieval:
        """Return the evidence for a question, best first. Raises Invalid, Upstream, Damaged."""
        timings: dict[str, float] = {}
        self._check(query)
        versions = self.versions(query.stores)
        key = keys.retrieval(caller.tenant, versions, self.model, query.text, self.params(query))
        with telemetry.span(_span_name(query), _span_attributes(query), kind="client"):
            fetched = await self._cache.fetch(
                key, lambda: self._search(query, timings), ttl=self._lifetimes.retrieval_seconds
            )
            found = _unpack(fetched.value)
            with _timed(timings, "text"):
                evidence = await self._database.view(lambda tx: _read(tx, found, query.limit))
        kept = tuple(item for item in evidence if item.score >= query.score_threshold)
        return Retrieval(kept, found, fetched.tier, timings)

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

    @property
    def model(self) -> str:
        return self._embedder.model

    async def embed(self, query: str) -> np.ndarray:
        """Return the query's vector, float32 (dimension,), through the cache."""

        async def compute() -> bytes:
            with telemetry.span(names.EMBEDDINGS.format(model=self._embedder.model), kind="client"):
                vectors = await self._embedder.embed([query])
                return bytes(vectors[0].astype("<f4").tobytes())

        key = keys.embedding(self._embedder.model, query)
        fetched = await self._cache.fetch(key, compute, ttl=self._lifetimes.embedding_seconds)
        return np.frombuffer(fetched.value, dtype="<f4")

    async def _search(self, query: Query, timings: dict[str, float]) -> dict[str, Any]:
        with _timed(timings, "embed"):
            vector = await self.embed(query.text)
        with _timed(timings, "search"):
            return await anyio.to_thread.run_sync(self._search_stores, query, vector)

    def _search_stores(self, query: Query, vector: np.ndarray) -> dict[str, Any]:
        """Search every store at one moment of it, and fuse the legs of all: their raw scores compare across stores."""
        if query.filter is not None:
            with self._database.read() as tx:
                check_filter(tx, [store.id for store in query.stores], query.filter)
        terms = list(dict.fromkeys(text.tokens(query.text)))
        dense: list[tuple[int, float]] = []
        lexical: list[tuple[int, float]] = []
        owner: dict[int, str] = {}
        with ExitStack() as pins:
            searchers = {store.id: pins.enter_context(self._searchers.pin(store.id)) for store in query.stores}
            for store_id, searcher in searchers.items():
                legs = self._search_one(store_id, searcher, query.filter, vector, terms)
                dense += legs.dense
                lexical += legs.lexical
                owner |= dict.fromkeys((chunk_id for chunk_id, _ in (*legs.dense, *legs.lexical)), store_id)
            frequencies = _frequencies(searchers.values(), terms)
            hits = self._fuse(query, dense, lexical)
            return {
                "hits": [(owner[hit.chunk_id], hit.chunk_id, hit.score, hit.dense, hit.lexical) for hit in hits],
                "seqs": {store_id: searcher.seq for store_id, searcher in searchers.items()},
                "generations": {store_id: searcher.generation for store_id, searcher in searchers.items()},
                "frequencies": frequencies,
                "chunks": sum(searcher.rows for searcher in searchers.values()),
            }

    def _search_one(
        self, store_id: str, searcher: Searcher, tree: Filter | None, vector: np.ndarray, terms: Sequence[str]
    ) -> Legs:
        allowed = None
        if tree is not None:
            allowed = self._sieve.admitted(store_id, tree)
        return searcher.search(vector, terms, candidates=self._settings.candidates, documents=allowed)

    def _fuse(self, query: Query, dense: list[tuple[int, float]], lexical: list[tuple[int, float]]) -> list[Hit]:
        return fuse(
            dense,
            lexical,
            method=query.fusion or self._settings.fusion,
            dense_weight=self._dense_weight(query),
            # All candidates: chunks that turn out to be gone leave their place to the next.
            limit=2 * self._settings.candidates * len(query.stores),
        )

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


def check_filter(tx: Transaction, store_ids: Sequence[str], tree: Filter) -> None:
    """Refuse a key that no document carries: nearly always a misspelt one, else silently no results.

    Where there is no attribute at all, as in a store that is still empty, there is none to be meant instead.
    """
    for key in filters.keys(tree):
        if any(attributes.has_key(tx, store_id, key) for store_id in store_ids):
            continue
        known = sorted({name for store_id in store_ids for name in attributes.keys(tx, store_id, SHOWN_KEYS)})
        if known:
            raise Invalid(
                f"No document in the vector stores searched has the attribute '{key}'; there are: "
                f"{', '.join(repr(name) for name in known[:SHOWN_KEYS])}.",
                param="filters",
                code="unknown_attribute",
            )


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


def _read(tx: Transaction, found: Found, limit: int) -> list[Evidence]:
    """Return the first `limit` hits that are still there. In slices: what is gone leaves its place to the next."""
    evidence: list[Evidence] = []
    for first in range(0, len(found.hits), limit):
        wanted = found.hits[first : first + limit]
        by_store: dict[str, list[Hit]] = {}
        for store_id, hit in wanted:
            by_store.setdefault(store_id, []).append(hit)
        read = {
            item.chunk_id: item
            for store_id, hits in by_store.items()
            for item in chunks.evidence(tx, store_id, hits, found.seqs[store_id])
        }
        evidence += [read[hit.chunk_id] for _, hit in wanted if hit.chunk_id in read]
        if len(evidence) >= limit:
            break
    return evidence[:limit]


def _unpack(value: Mapping[str, Any]) -> Found:
    return Found(
        hits=tuple((store_id, Hit(*hit)) for store_id, *hit in value["hits"]),
        seqs=value["seqs"],
        generations=value["generations"],
        frequencies=value["frequencies"],
        chunks=value["chunks"],
    )


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        timings[stage] = seconds * 1000
        telemetry.record(names.RETRIEVAL_DURATION, seconds, {names.RETRIEVAL_STAGE: stage})
