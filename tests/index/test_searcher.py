from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.conftest import STORE, Bed, row, vector
from ragagent.errors import Invalid
from ragagent.index.searcher import Searcher

CHUNKS = 120


@pytest.fixture(scope="module", params=["flat", "graph"])
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """Chunks 0..119, four to a document: a third in the generation, replaced or dead here and there, the rest newer."""
    with ExitStack() as stack:
        bed = Bed(Path(tmp_path_factory.mktemp("index")), stack)
        writer = bed.writer(hnsw_rows=10_000 if request.param == "flat" else 1)
        writer.publish(1, [row(chunk) for chunk in range(0, CHUNKS, 3)])
        writer.compact()
        writer.publish(2, [row(chunk) for chunk in range(CHUNKS) if chunk % 3], dead=[3, 6], forget=[3, 6])
        writer.publish(3, [row(9), row(10)], dead=[1, 2], forget=[1, 2])
        yield stack.enter_context(bed.searchers().pin(STORE))


ALIVE = sorted(set(range(CHUNKS)) - {1, 2, 3, 6})


@settings(max_examples=150, deadline=None)
@given(
    documents=st.none() | st.lists(st.integers(-2, CHUNKS // 4 + 2), unique=True).map(sorted),
    seed=st.integers(0, 1000),
    candidates=st.integers(1, 150),
)
def test_filters_are_applied_inside_the_search(
    searcher: Searcher, documents: list[int] | None, seed: int, candidates: int
) -> None:
    """Both legs agree with brute force: never a chunk that is not allowed, never fewer than there are."""
    allowed = [chunk for chunk in ALIVE if documents is None or chunk // 4 in documents]
    query = vector(seed)
    exact = sorted(((float(vector(chunk) @ query), chunk) for chunk in allowed), key=lambda pair: (-pair[0], pair[1]))
    filter_ids = None if documents is None else np.array(documents, np.int64)
    legs = searcher.search(query, ["all", "w5"], candidates=candidates, documents=filter_ids)
    assert [score for _, score in legs.dense] == pytest.approx([score for score, _ in exact[:candidates]], abs=1e-5)
    assert {chunk for chunk, _ in legs.dense} <= set(allowed)
    assert len(legs.dense) == len({chunk for chunk, _ in legs.dense})
    assert {chunk for chunk, _ in legs.lexical} <= set(allowed)
    assert len(legs.lexical) == min(candidates, len(allowed))
    assert legs.lexical == sorted(legs.lexical, key=lambda hit: (-hit[1], hit[0]))
    assert (5 in allowed) == (bool(legs.lexical) and legs.lexical[0][0] == 5)


def test_the_last_filters_are_known_again_by_the_array_itself(searcher: Searcher) -> None:
    one, other = np.array([1, 2, 5]), np.array([1, 2, 5])
    first = searcher._dense.select(one)
    assert searcher._dense.select(one) is first
    assert searcher._dense.select(other) is not first
    for n in range(20):
        searcher._dense.select(np.array([n]))
    assert searcher._dense.select(one) is not first
    assert len(searcher._dense._selected) == 8


def test_each_leg_may_be_left_out(searcher: Searcher) -> None:
    assert searcher.search(None, ["all"], candidates=5).dense == []
    assert searcher.search(vector(1), [], candidates=5).lexical == []


def test_rows_count_the_living(searcher: Searcher) -> None:
    assert searcher.rows == len(ALIVE)


def test_a_query_vector_of_another_shape_is_refused(searcher: Searcher) -> None:
    for bad in (vector(1, 15), np.zeros(16, np.float32), np.full(16, np.nan, np.float32)):
        with pytest.raises(Invalid):
            searcher.search(bad, ["all"], candidates=5)
