"""Two editions of a store side by side: how alike their dense legs find, and which finds better what should be found.

Samples are the store's own chunks: each has a vector of either model already, so no model is asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragagent.errors import Invalid
from ragagent.index.searchers import Searchers
from ragagent.store import chunks
from ragagent.store.database import Database
from ragagent.store.editions import Edition

DEPTH = 10  # hits that are compared


@dataclass(frozen=True, slots=True)
class Probe:
    """One question with its vector of either model. `itself` is a chunk that it is made of, and does not count."""

    text: str
    old: np.ndarray
    new: np.ndarray
    itself: int | None = None
    wanted: str | None = None  # the external id or the file id of the document that should be found


@dataclass(frozen=True, slots=True)
class Comparison:
    """Overlap: the share of one's ten best that the other finds too. Hits: {"old": {"1": share, "10": share}, ...}."""

    probes: int
    mean: float
    worst: float
    worst_text: str
    hits: Mapping[str, Mapping[str, float]] | None


def sampled(database: Database, old: Edition, new: Edition, count: int) -> list[Probe]:
    """Return probes made of chunks taken at random. Raises Invalid: there is no chunk with vectors of both."""
    with database.read() as tx:
        found = chunks.sample(tx, old.store_id, count, random.Random(0))
        pairs = [
            (chunk_id, text, chunks.vector(tx, old.slot, chunk_id), chunks.vector(tx, new.slot, chunk_id))
            for chunk_id, text in found
        ]
    probes = [
        Probe(text, first, second, itself=chunk_id)
        for chunk_id, text, first, second in pairs
        if first is not None and second is not None
    ]
    if not probes:
        raise Invalid("No chunk of the store has vectors of both models yet; there is nothing to compare.")
    return probes


def compare(
    database: Database, searchers: Searchers, old: Edition, new: Edition, probes: Sequence[Probe]
) -> Comparison:
    """Ask both editions each probe. Raises Damaged."""
    overlaps: list[float] = []
    ranks: dict[str, list[int | None]] = {"old": [], "new": []}
    with searchers.pin(old.index) as first, searchers.pin(new.index) as second:
        for probe in probes:
            found = {}
            for side, searcher, vector in (("old", first, probe.old), ("new", second, probe.new)):
                leg = searcher.search(vector, (), candidates=DEPTH + 1).dense
                found[side] = [chunk_id for chunk_id, _ in leg if chunk_id != probe.itself][:DEPTH]
                if probe.wanted is not None:
                    ranks[side].append(_rank(database, found[side], probe.wanted))
            largest = max(len(found["old"]), len(found["new"]), 1)
            overlaps.append(len(set(found["old"]) & set(found["new"])) / largest)
    worst = min(range(len(overlaps)), key=overlaps.__getitem__)
    return Comparison(
        len(probes),
        sum(overlaps) / len(overlaps),
        overlaps[worst],
        probes[worst].text,
        {side: _shares(found) for side, found in ranks.items()} if ranks["old"] else None,
    )


def _rank(database: Database, chunk_ids: Sequence[int], wanted: str) -> int | None:
    """Return at which place, from 1 on, the first chunk of the wanted document stands."""
    with database.read() as tx:
        names = chunks.documents_named(tx, chunk_ids)
    return next((place for place, chunk_id in enumerate(chunk_ids, 1) if wanted in names.get(chunk_id, ())), None)


def _shares(ranks: Sequence[int | None]) -> Mapping[str, float]:
    return {str(k): sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in (1, DEPTH)}
