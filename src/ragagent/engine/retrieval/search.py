"""The search itself, in a thread: both legs of every store, fused, and the text read last.

The text is read from SQLite after the search, so a deleted document is gone from answers at once, whatever an index
still remembers of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from ragagent import names, telemetry, text
from ragagent.config import Retrieval as Settings
from ragagent.engine import editions
from ragagent.engine.retrieval.filtered import Filtered, check_filter
from ragagent.engine.retrieval.found import Found
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.sieve import Sieve
from ragagent.index.fusion import fuse
from ragagent.index.searcher import Searcher
from ragagent.index.searchers import Searchers
from ragagent.store.database import Database
from ragagent.types import EmbeddingSpace, Evidence, Hit


class Search:
    """Safe for threads."""

    def __init__(self, database: Database, searchers: Searchers, sieve: Sieve, settings: Settings) -> None:
        self._database = database
        self._searchers = searchers
        self._filtered = Filtered(database, sieve, settings.candidates)
        self._settings = settings

    def together(
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
                with timed(times, "search"):
                    found = self._search_stores(query, of_query, searchers)
                with timed(times, "text"), self._database.read() as tx:
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
            dense_weight=self.dense_weight(query),
            # All candidates: chunks that turn out to be gone leave their place to the next.
            limit=2 * self._settings.candidates * len(query.stores),
        )
        cosines = dict(itertools.chain.from_iterable(dense.values()))
        return [dataclasses.replace(hit, dense=cosines.get(hit.chunk_id)) for hit in hits] if len(dense) > 1 else hits

    def dense_weight(self, query: Query) -> float:
        return self._settings.dense_weight if query.dense_weight is None else query.dense_weight


def _comparable(legs: Sequence[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Lay the dense legs of several models end to end. Their cosines do not compare: each leg's best counts as one."""
    if len(legs) == 1:
        return legs[0]
    bests = [max((score for _, score in leg), default=0.0) for leg in legs]
    return [
        (chunk_id, score / best) for leg, best in zip(legs, bests, strict=True) if best > 0.0 for chunk_id, score in leg
    ]


def _frequencies(searchers: Iterable[Searcher], terms: Sequence[str]) -> dict[str, int]:
    total = dict.fromkeys(terms, 0)
    for searcher in searchers:
        for term, frequency in searcher.doc_freqs(terms).items():
            total[term] += frequency
    return total


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        timings[stage] = seconds * 1000
        telemetry.record(names.RETRIEVAL_DURATION, seconds, {names.RETRIEVAL_STAGE: stage})
