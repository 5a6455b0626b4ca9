"""Filters mean what they say, and have bounds; weights are a share."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bodies import refusal, said
from ragagent.api.schemas.search import MAX_FILTER_DEPTH, HybridSearch, Search, filter_tree
from ragagent.errors import Invalid
from ragagent.types import Comparison, Compound, Filter

EQ = {"type": "eq", "key": "year", "value": 2024}

keys = st.text(st.characters(exclude_characters='"\0', exclude_categories=["Cs"]), min_size=1, max_size=64)
ordered = (
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
leaves = (
    st.tuples(st.sampled_from(["eq", "ne"]), keys, ordered | st.booleans())
    | st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), keys, ordered)
    | st.tuples(st.sampled_from(["in", "nin"]), keys, st.lists(ordered | st.booleans(), max_size=5).map(tuple))
).map(lambda leaf: Comparison(*leaf))
trees: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.builds(
        Compound, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=4).map(tuple)
    ),
    max_leaves=20,
)


def spelt(tree: Filter) -> dict[str, Any]:
    if isinstance(tree, Compound):
        return {"type": tree.op, "filters": [spelt(part) for part in tree.filters]}
    return {
        "type": tree.op,
        "key": tree.key,
        "value": list(tree.value) if isinstance(tree.value, tuple) else tree.value,
    }


def depth(tree: Filter) -> int:
    return 1 if isinstance(tree, Comparison) else 1 + max(map(depth, tree.filters))


@given(trees)
def test_a_filter_means_what_it_says(tree: Filter) -> None:
    filters = said(Search, {"query": "x", "filters": spelt(tree)}).filters
    if depth(tree) > MAX_FILTER_DEPTH:
        with pytest.raises(Invalid, match="deep"):
            filter_tree(filters)
        return
    read_back = filter_tree(filters)
    assert read_back == tree
    assert repr(read_back) == repr(tree)  # True is not 1, 1 is not 1.0: what the cache keys on.


def test_without_filters_there_is_no_tree() -> None:
    assert filter_tree(None) is None


@pytest.mark.parametrize(
    "filters",
    [
        {"type": "and", "filters": [{"type": "or", "filters": [EQ] * 51}] * 2},
        {"type": "or", "filters": [{"type": "in", "key": "k", "value": list(range(1000))}] * 11},
    ],
)
def test_a_filter_too_large_for_one_statement_is_refused(filters: Any) -> None:
    with pytest.raises(Invalid, match="at most 100, 10000 and 8") as refused:
        filter_tree(said(Search, {"query": "x", "filters": filters}).filters)
    assert refused.value.param == "filters"


@pytest.mark.parametrize(("embedding", "words", "weight"), [(1, 1, 0.5), (0, 1, 0.0), (1, 0, 1.0), (1, 3, 0.25)])
def test_the_weights_of_a_hybrid_search_are_one_share(embedding: float, words: float, weight: float) -> None:
    asked = HybridSearch(embedding_weight=embedding, text_weight=words)
    assert asked.dense_weight == weight


def test_weights_of_nothing_are_refused() -> None:
    hybrid = {"embedding_weight": 0, "text_weight": 0}
    refused = refusal(Search, {"query": "x", "ranking_options": {"hybrid_search": hybrid}})
    assert refused.param == "ranking_options.hybrid_search"
