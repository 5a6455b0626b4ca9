from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.errors import Invalid
from ragagent.index.fusion import fuse
from ragagent.types import Hit

scores = st.floats(-1, 30, allow_nan=False)
legs = st.dictionaries(st.integers(1, 30), scores, max_size=20).map(lambda leg: list(leg.items()))
methods: st.SearchStrategy[Literal["convex", "rrf"]] = st.sampled_from(("convex", "rrf"))


def test_convex_divides_each_leg_by_its_best() -> None:
    hits = fuse([(1, 0.8), (2, 0.4)], [(2, 10.0), (3, 5.0)], dense_weight=0.2, limit=10)
    assert hits == [Hit(2, 0.9, 0.4, 10.0), Hit(3, 0.4, None, 5.0), Hit(1, 0.2, 0.8, None)]


def test_a_lexical_leg_with_nothing_adds_nothing() -> None:
    hits = fuse([(1, 0.8), (2, 0.4)], [(2, 0.0)], dense_weight=0.2, limit=10)
    assert [(hit.chunk_id, hit.score) for hit in hits] == [(1, 0.2), (2, 0.1)]


@pytest.mark.parametrize("method", ["convex", "rrf"])
def test_negative_cosines_count_nothing(method: Literal["convex", "rrf"]) -> None:
    assert fuse([(1, -0.3), (2, 0.0)], [], method=method, limit=10) == []


def test_equal_scores_are_ordered_by_chunk_id() -> None:
    hits = fuse([], [(9, 2.0), (3, 2.0), (5, 2.0)], limit=2)
    assert [hit.chunk_id for hit in hits] == [3, 5]


def test_rrf_weighs_ranks() -> None:
    hits = fuse([(1, 0.9), (2, 0.8)], [(2, 9.0)], method="rrf", dense_weight=0.5, limit=10)
    assert [hit.chunk_id for hit in hits] == [2, 1]
    assert hits[0].score == pytest.approx(0.5 * 61 / 62 + 0.5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(Invalid, match=r"0\.\.1"):
        fuse([], [], dense_weight=weight, limit=1)


@given(legs, legs, methods, st.floats(0, 1), st.integers(0, 40))
def test_fused_hits_are_distinct_ordered_bounded_and_known(
    dense: list[tuple[int, float]],
    lexical: list[tuple[int, float]],
    method: Literal["convex", "rrf"],
    weight: float,
    limit: int,
) -> None:
    hits = fuse(dense, lexical, method=method, dense_weight=weight, limit=limit)
    ids = [hit.chunk_id for hit in hits]
    assert len(ids) == len(set(ids)) <= limit
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
    assert all(0.0 < hit.score <= 1.0 for hit in hits)
    assert all(
        (hit.dense, hit.lexical) == (dict(dense).get(i), dict(lexical).get(i)) for i, hit in zip(ids, hits, strict=True)
    )


@given(legs, legs, methods)
def test_the_order_that_a_leg_comes_in_does_not_matter(
    dense: list[tuple[int, float]], lexical: list[tuple[int, float]], method: Literal["convex", "rrf"]
) -> None:
    assert fuse(dense, lexical, method=method, limit=9) == fuse(dense[::-1], lexical[::-1], method=method, limit=9)
