from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.test_generation import DIMENSION, clustered
from ragagent.errors import Damaged
from ragagent.index import storage
from ragagent.index.exact import faiss
from ragagent.index.storage import Storage


def stored(path: Path, *, is_int8: bool) -> Storage:
    index = storage.new(DIMENSION, is_int8=is_int8)
    if not index.is_trained:
        index.train(clustered(200, 1))
    index.add(clustered(200, 1))
    faiss.write_index(index, str(path / storage.NAME))
    return Storage(storage.read(path, 200, DIMENSION, "It"))


@pytest.mark.parametrize(("is_int8", "error"), [(False, 1e-6), (True, 0.01)], ids=["float32", "int8"])
def test_vectors_and_scores_are_given_by_position(
    tmp_path: Path, is_int8: bool, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BLOCK", 7)
    vectors, query = clustered(200, 1), clustered(1, 2)[0]
    opened = stored(tmp_path, is_int8=is_int8)
    assert opened.is_int8 == is_int8
    for positions in (np.array([3, 199, 0]), np.arange(200), np.empty(0, np.int64)):
        assert np.allclose(opened.take(positions), vectors[positions], atol=error)
        assert np.allclose(opened.scores(query, positions), vectors[positions] @ query, atol=error)


def test_ranges_fit_what_hardly_leaves_them(tmp_path: Path) -> None:
    opened = stored(tmp_path, is_int8=True)
    assert opened.fits(clustered(200, 1))
    assert not opened.fits(1.5 * clustered(200, 1))


def test_an_index_of_another_kind_is_damage(tmp_path: Path) -> None:
    faiss.write_index(faiss.IndexFlatL2(DIMENSION), str(tmp_path / storage.NAME))
    with pytest.raises(Damaged, match="IndexFlatL2, not one of ours"):
        storage.read(tmp_path, 0, DIMENSION, "It")
