from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.test_generation import DIMENSION, clustered
from ragagent.errors import Damaged
from ragagent.index import files, graph, storage
from ragagent.index.exact import faiss


@pytest.mark.parametrize("is_int8", [False, True], ids=["float32", "int8"])
def test_a_graph_read_back_finds_what_the_one_in_memory_found(tmp_path: Path, is_int8: bool) -> None:
    vectors, queries = clustered(3000, 1), clustered(20, 2)
    index = graph.over(storage.new(DIMENSION, is_int8=is_int8))
    if is_int8:
        index.train(vectors)
    index.add(vectors)
    graph.write(tmp_path, index)
    faiss.write_index(faiss.downcast_index(index.storage), str(tmp_path / storage.NAME))
    again, links = graph.read(tmp_path, storage.read(tmp_path, 3000, DIMENSION, "It"))
    assert not again.hnsw.neighbors.is_owned
    assert len(links) == again.hnsw.neighbors.size()
    for ef in (10, 100):
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        for one, other in zip(
            index.search(queries, 10, params=parameters), again.search(queries, 10, params=parameters), strict=True
        ):
            assert np.array_equal(one, other)


def test_a_graph_that_begins_nowhere_is_damage(tmp_path: Path) -> None:
    vectors = clustered(50, 1)
    index = graph.over(storage.new(DIMENSION, is_int8=False))
    index.add(vectors)
    graph.write(tmp_path, index)
    faiss.write_index(faiss.downcast_index(index.storage), str(tmp_path / storage.NAME))
    for entry in ([50, 0], [-1, 0], [0, 99]):
        files.write_at(tmp_path / graph.ENTRY, 0, np.array(entry, np.int64))
        with pytest.raises(Damaged, match="it has 50 rows"):
            graph.read(tmp_path, storage.read(tmp_path, 50, DIMENSION, "It"))


def test_a_larger_graph_is_searched_further() -> None:
    found = [graph.ef_search(rows, is_int8=False) for rows in (0, 1, 20_000, 200_000, 1_000_000)]
    assert found == [72, 72, 72, 144, 233]
    assert graph.ef_search(200_000, is_int8=True) == 180
