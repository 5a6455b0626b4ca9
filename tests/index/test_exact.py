from __future__ import annotations

import threading

import numpy as np
import pytest

from ragagent.errors import Invalid
from ragagent.index import exact
from ragagent.index.dense import unit_vectors
from ragagent.index.exact import faiss


def test_scores_are_inner_products() -> None:
    rng = np.random.default_rng(0)
    vectors, query = rng.standard_normal((50, 7), np.float32), rng.standard_normal(7, np.float32)
    positions = np.array([3, 0, 49], np.int64)
    assert np.allclose(exact.scores(query, vectors), vectors @ query, atol=1e-5)
    assert np.allclose(exact.scores(query, vectors, positions), vectors[positions] @ query, atol=1e-5)
    assert len(exact.scores(query, vectors[:0])) == len(exact.scores(query, vectors, positions[:0])) == 0


def test_every_thread_that_searches_keeps_to_itself() -> None:
    """OpenMP's thread count is per calling thread: set once in a process, it held for one thread alone."""
    seen = []

    def search() -> None:
        exact.scores(np.ones(2, np.float32), np.ones((2, 2), np.float32))
        seen.append(faiss.omp_get_max_threads())

    for _ in range(2):
        thread = threading.Thread(target=search)
        thread.start()
        thread.join()
    assert seen == [1, 1]


def test_membership_in_a_sorted_array() -> None:
    values = np.array([5, 1, 9, 5, 10, 0], np.int64)
    assert exact.contains(np.array([1, 5, 9]), values).tolist() == [True, True, True, True, False, False]
    assert not exact.contains(np.array([], np.int64), values).any()


@pytest.mark.parametrize("spread", [1, 1000], ids=["dense", "sparse"])
def test_membership_of_many_is_the_same(spread: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-50, 50, 200) * spread
    for allowed in (np.unique(rng.integers(-80, 80, 60)) * spread, np.array([], np.int64), np.array([999_999])):
        assert exact.contains_many(allowed, values).tolist() == np.isin(values, allowed).tolist()
    assert exact.contains_many(values, values[:0]).tolist() == []


@pytest.mark.parametrize(
    "vector",
    [[1.0, 0.0, 0.0], [[1.0], [0.0]], [0.5, 0.5], [0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0], [2e19, 2e19]],
)
def test_a_vector_that_is_not_of_unit_length_is_refused(vector: list[float]) -> None:
    with pytest.raises(Invalid), np.errstate(over="ignore"):
        unit_vectors(np.array(vector, np.float32), 2)
