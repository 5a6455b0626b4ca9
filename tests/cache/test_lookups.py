from __future__ import annotations

from ragagent import names
from ragagent.cache.lookups import Lookups


def test_look_ups_are_counted_by_tier_kind_and_outcome() -> None:
    lookups = Lookups()
    assert (lookups.counts(), lookups.points(), lookups.of("l1", "hit")) == ({}, [], 0)
    for _ in range(3):
        lookups.note("l1", "answer", "hit")
    lookups.note("l1", "embedding", "hit")
    lookups.note("l2", "answer", "stale")
    assert lookups.of("l1", "hit") == 4
    assert lookups.counts() == {"l1": {"answer": {"hit": 3}, "embedding": {"hit": 1}}, "l2": {"answer": {"stale": 1}}}
    attributes = {names.CACHE_TIER: "l1", names.CACHE_KIND: "answer", names.CACHE_OUTCOME: "hit"}
    assert (attributes, 3) in lookups.points()
    assert set(attributes) == set(names.CACHE_REQUESTS.attributes)
