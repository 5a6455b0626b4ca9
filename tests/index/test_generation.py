from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ragagent.errors import Damaged
from ragagent.index import generation
from ragagent.index.exact import faiss
from ragagent.index.generation import Generation, Selection, Vanished
from ragagent.index.manifest import Part

DIMENSION = 24


def clustered(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors around 60 centres, which are the same for every seed."""
    centres = np.random.default_rng(0).standard_normal((60, DIMENSION))
    rng = np.random.default_rng(seed)
    found = centres[rng.integers(0, 60, count)] + 0.5 * rng.standard_normal((count, DIMENSION))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def build(store: Path, vectors: npt.NDArray[np.float32], *, hnsw_rows: int, is_int8: bool = False) -> Generation:
    rows = np.stack([np.arange(len(vectors)) + 1000, np.arange(len(vectors)) // 4], axis=1).astype(np.int64)
    index = generation.new_index(len(vectors), DIMENSION, hnsw_rows, is_int8)
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    generation.write(generation.generation_path(store, 1), index, rows)
    return Generation.open(store, Part(1, len(vectors)), DIMENSION)


@pytest.mark.parametrize("hnsw_rows", [1, 10_000], ids=["hnsw", "flat"])
def test_rows_and_vectors_read_back_mapped_and_read_only(tmp_path: Path, hnsw_rows: int) -> None:
    vectors = clustered(300, 1)
    opened = build(tmp_path, vectors, hnsw_rows=hnsw_rows)
    assert np.array_equal(opened.vectors.take(np.arange(300)), vectors)
    assert opened.rows[5].tolist() == [1005, 1]
    for view in (opened.vectors._data, opened.rows):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
    opened.release()


def test_nothing_on_a_generation_can_reach_add() -> None:
    """`add` on a mapped index ends the process."""
    assert [name for name in dir(Generation) if "add" in name or "train" in name or "remove" in name] == []


@pytest.mark.parametrize("kind", ["hnsw", "hnsw-int8"])
@pytest.mark.parametrize("kept", [1.0, 0.5, 0.1, 0.01, 0.001], ids=lambda kept: f"{kept:.1%}")
def test_the_graph_finds_nineteen_of_twenty_whatever_the_filter(tmp_path: Path, kept: float, kind: str) -> None:
    vectors, queries = clustered(6000, 1), clustered(50, 2)
    opened = build(tmp_path, vectors, hnsw_rows=1, is_int8=kind == "hnsw-int8")
    assert opened.kind == kind
    mask = np.random.default_rng(3).random(len(vectors)) < kept
    wanted = min(10, int(mask.sum()))
    selection = None if kept == 1.0 else Selection(mask)
    found = 0
    for query in queries:
        positions, scores = opened.search(query, 10, selection, 0)
        assert mask[positions].all()
        assert np.allclose(scores, vectors[positions] @ query, atol=1e-5 if kind == "hnsw" else 0.02)
        exact = np.where(mask, vectors @ query, -2)
        found += len(set(positions.tolist()) & set(np.argsort(-exact)[:wanted].tolist()))
    assert found >= 0.95 * wanted * len(queries)
    opened.release()


@pytest.mark.parametrize("rows_per_range", [1, 1_000_000], ids=["narrow", "broad"])
def test_documents_select_their_rows_and_no_others(
    tmp_path: Path, rows_per_range: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_ROWS_PER_RANGE", rows_per_range)
    opened = build(tmp_path, clustered(41, 1), hnsw_rows=100)
    for documents in ([], [0], [10], [3, 4, 9], [-5, 2, 77], list(range(11))):
        expected = [position for position in range(41) if position // 4 in documents]
        assert np.flatnonzero(opened.select(np.array(documents, np.int64))).tolist() == expected
    opened.release()


def test_an_empty_generation_finds_nothing(tmp_path: Path) -> None:
    opened = build(tmp_path, clustered(0, 1), hnsw_rows=100)
    positions, scores = opened.search(clustered(1, 1)[0], 5, None, 64)
    assert len(positions) == len(scores) == 0
    opened.release()


@pytest.mark.parametrize("name", ["vectors.faiss", "rows.i64", "links.i32", "starts.i64", "entry.i64", "CHECKSUMS"])
@pytest.mark.parametrize("left", [0, 0.5, None], ids=["empty", "half", "gone"])
def test_a_short_or_missing_file_is_damage(tmp_path: Path, name: str, left: float | None) -> None:
    build(tmp_path, clustered(100, 1), hnsw_rows=1).release()
    path = tmp_path / "000001" / name
    data = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(Damaged, match="000001"):
        Generation.open(tmp_path, Part(1, 100), DIMENSION)


def test_another_size_than_the_manifest_s_is_damage(tmp_path: Path) -> None:
    build(tmp_path, clustered(100, 1), hnsw_rows=1000).release()
    for rows, dimension in ((99, DIMENSION), (100, DIMENSION + 1)):
        with pytest.raises(Damaged, match="its manifest says"):
            Generation.open(tmp_path, Part(1, rows), dimension)


def test_an_index_in_private_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag that sounds right, IO_FLAG_MMAP, quietly copies: the map is looked for, not trusted."""
    build(tmp_path, clustered(100, 1), hnsw_rows=1000).release()
    monkeypatch.setattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    with pytest.raises(Damaged, match="private memory"):
        Generation.open(tmp_path, Part(1, 100), DIMENSION)


def test_a_generation_without_its_lock_has_vanished(tmp_path: Path) -> None:
    with pytest.raises(Vanished):
        Generation.open(tmp_path, Part(1, 100), DIMENSION)
