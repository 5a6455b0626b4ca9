from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.conftest import DIMENSION, MODEL, STORE, Bed, row, rows, seen, vector
from ragagent.errors import Conflict, Damaged, Invalid, Unavailable
from ragagent.index import files, manifest
from ragagent.index.directory import disk_stats, remove
from ragagent.index.lexical import LexicalWriter
from ragagent.index.rows import Row
from ragagent.index.writer import Writer


def test_published_rows_are_found_by_both_legs(bed: Bed) -> None:
    bed.writer().publish(1, rows(range(20)))
    with bed.searchers().pin(STORE) as searcher:
        legs = searcher.search(vector(7), ["w7"], candidates=3)
        assert legs.dense[0][0] == 7
        assert legs.dense[0][1] == pytest.approx(1.0, abs=1e-5)
        assert [chunk for chunk, _ in legs.lexical] == [7]
        assert (searcher.seq, searcher.rows, searcher.model, searcher.dimension) == (1, 20, MODEL, DIMENSION)


def test_dead_rows_leave_the_dense_leg_and_forgotten_ones_the_lexical(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(6)))
    writer.publish(2, dead=[1, 2, 999], forget=[2, 3, 999])
    assert seen(searchers) == (2, {0, 3, 4, 5}, {0, 1, 4, 5})
    writer.publish(3, dead=[1, 2], forget=[2, 3])
    assert seen(searchers) == (3, {0, 3, 4, 5}, {0, 1, 4, 5})
    assert writer.manifest.dead_rows == 2


def test_a_chunk_added_again_replaces_itself(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, [row(1, tokens="old"), row(2)])
    writer.compact()
    writer.publish(2, [row(1, seed=50), row(1, seed=60, tokens="new")])
    with searchers.pin(STORE) as searcher:
        legs = searcher.search(vector(60), ["old", "new"], candidates=10)
        assert [chunk for chunk, _ in legs.dense] == [1, 2]
        assert legs.dense[0][1] == pytest.approx(1.0, abs=1e-5)
        assert [chunk for chunk, _ in legs.lexical] == [1]
        assert searcher.doc_freqs(["new", "absent"]) == {"new": 1, "absent": 0}


def test_a_bare_seq_moves_the_manifest_and_nothing_else(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    monkeypatch.setattr(files, "write_at", None)
    monkeypatch.setattr(LexicalWriter, "replace", None)
    writer.publish(5)
    assert searchers.seq(STORE) == writer.seq == 5


def test_nothing_new_publishes_nothing(bed: Bed) -> None:
    writer = bed.writer()
    before = manifest.stamp(bed.store)
    writer.publish(0, dead=[7])
    assert manifest.stamp(bed.store) == before


def test_seq_never_goes_back(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(5)
    with pytest.raises(Invalid, match="at seq 5"):
        writer.publish(4, rows([1]))
    writer.publish(5, rows([1]))


@pytest.mark.parametrize(
    "bad", [vector(1)[:-1], vector(1) * 2, np.full(DIMENSION, np.nan, np.float32), np.zeros(DIMENSION, np.float32)]
)
def test_a_bad_vector_is_refused_and_changes_nothing(
    bed: Bed, bad: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    with pytest.raises(Invalid):
        writer.publish(1, [row(1), Row(2, 0, bad, "all")])
    assert seen(searchers) == (0, set(), set())
    writer.publish(1, rows([1]))


def test_data_is_durable_before_the_manifest_names_it(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = bed.writer()
    steps: list[str] = []

    def recorded(act: Callable[..., object], name: str, at: int) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            steps.append(f"{name} {Path(str(arguments[at])).name}" if at >= 0 else name)
            return act(*arguments)

        return wrapped

    for name, at in (("write_at", 0), ("write_file", 0), ("sync", 0), ("rename", 1)):
        monkeypatch.setattr(files, name, recorded(getattr(files, name), name, at))
    monkeypatch.setattr(LexicalWriter, "replace", recorded(LexicalWriter.replace, "commit", -1))
    writer.publish(1, rows([1]), dead=[1])
    assert steps == [
        "write_at vectors.f32",
        "write_at rows.i64",
        "commit",
        "write_file MANIFEST.tmp",
        "rename MANIFEST",
        "sync vs_test",
    ]


def refuse(*_: object) -> None:
    raise PermissionError(errno.EACCES, "refused")


def test_a_failed_publish_closes_the_writer_and_a_reopened_one_goes_on(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(4)))
    with monkeypatch.context() as patched:
        patched.setattr(files, "rename", refuse)
        with pytest.raises(Unavailable, match="refused"):
            writer.publish(2, rows([7]), dead=[0], forget=[0])
    with pytest.raises(Conflict, match="opened again"):
        writer.publish(2, rows([7]))
    again = bed.writer()
    assert again.seq == 1
    again.publish(2, rows([7]), dead=[0], forget=[0])
    assert seen(searchers) == (2, {1, 2, 3, 7}, {1, 2, 3, 7})


def test_a_full_disk_is_storage_full_and_passes(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(8)))
    child = bed.child("full")
    assert child.communicate(timeout=60)[0].split() == ["StorageFull", "2"]
    assert seen(bed.searchers()) == (2, set(range(50)), set(range(50)))


def test_a_torn_tail_is_cut_off_and_overwritten(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
    for name in ("vectors.f32", "rows.i64", "dead.i64"):
        with open(bed.store / "000001.delta" / name, "ab") as file:
            file.write(b"torn by a crash")
    assert seen(bed.searchers()) == (1, {0, 1, 2, 3}, {0, 1, 2, 3})
    writer = bed.writer()
    assert (bed.store / "000001.delta" / "rows.i64").stat().st_size == 4 * 16
    writer.publish(2, rows([9]), dead=[0], forget=[0])
    assert seen(bed.searchers()) == (2, {1, 2, 3, 9}, {1, 2, 3, 9})


@pytest.mark.parametrize(
    "name", ["000001.delta/vectors.f32", "000001.delta/rows.i64", "000001.delta/dead.i64", "000001/vectors.faiss"]
)
@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "short"])
def test_what_is_missing_or_short_is_damage_and_recreate_is_the_way_on(bed: Bed, name: str, is_gone: bool) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
        writer.publish(2, dead=[1], forget=[1])
    path = bed.store / name
    if is_gone:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged):
        bed.writer()
    with pytest.raises(Damaged):
        seen(bed.searchers())
    again = bed.recreated()
    assert again.seq == 0
    again.publish(2, rows([0, 2, 3]))
    assert seen(bed.searchers()) == (2, {0, 2, 3}, {0, 2, 3})


def test_a_lost_lexical_index_is_damage(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
    files.remove(bed.store / "lexical")
    with pytest.raises(Damaged, match="lexical"):
        bed.writer()


def test_a_lexical_index_older_than_the_manifest_is_damage(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
        shutil.copytree(bed.store / "lexical", bed.root / "older")
        writer.publish(2, rows(range(4, 8)))
    files.remove(bed.store / "lexical")
    (bed.root / "older").rename(bed.store / "lexical")
    with pytest.raises(Damaged, match="older than its manifest"):
        bed.writer()


@pytest.mark.parametrize("name", ["rows.i64", "links.i32", "starts.i64", "entry.i64"])
def test_what_could_lead_a_reader_astray_is_found_by_the_writer(bed: Bed, name: str) -> None:
    """A link into nowhere would end the process that follows it."""
    with bed.writer(hnsw_rows=1) as writer:
        writer.publish(1, rows(range(40)))
        writer.compact()
    path = bed.store / "000002" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 64
    path.write_bytes(data)
    with pytest.raises(Damaged, match="checksum"):
        bed.writer(hnsw_rows=1)


@pytest.mark.parametrize("name", ["vectors.f32", "rows.i64", "dead.i64"])
def test_a_flipped_bit_in_the_delta_is_damage_for_readers_and_writers(bed: Bed, name: str) -> None:
    searchers = bed.searchers()
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
        assert seen(searchers)[0] == 1
        writer.publish(2, rows(range(4, 8)), dead=[0, 1], forget=[0, 1])
    path = bed.store / "000001.delta" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="checksums"):
        seen(searchers)
    with pytest.raises(Damaged, match="checksums"):
        bed.writer()


def test_a_flipped_bit_in_the_manifest_is_damage(bed: Bed) -> None:
    bed.writer().close()
    path = bed.store / "MANIFEST"
    data = bytearray(path.read_bytes())
    data[30] ^= 4
    path.write_bytes(data)
    with pytest.raises(Damaged, match="vs_test"):
        bed.writer()
    with pytest.raises(Damaged, match="vs_test"):
        bed.searchers().seq(STORE)


def test_another_model_is_a_conflict(bed: Bed) -> None:
    bed.writer().close()
    with pytest.raises(Conflict, match="'model-a' of 16 dimensions, not 'model-b' of 16"):
        Writer.open(bed.root, STORE, "model-b", DIMENSION, hnsw_rows=1, max_delta_rows=1)


def test_open_removes_what_a_crash_left(bed: Bed) -> None:
    bed.writer().close()
    for orphan in ("000002", "000003.tmp", "000004.delta", "000005.delta.tmp"):
        (bed.store / orphan).mkdir()
    (bed.store / "MANIFEST.tmp").write_bytes(b"torn")
    bed.writer()
    assert sorted(path.name for path in bed.store.iterdir()) == ["000001", "000001.delta", "MANIFEST", "lexical"]


def test_disk_stats_count_what_lies_there(bed: Bed) -> None:
    assert disk_stats(bed.root, STORE) is None
    writer = bed.writer()
    writer.publish(3, rows(range(10)))
    writer.publish(4, dead=[1])
    stats = disk_stats(bed.root, STORE)
    assert stats is not None
    assert (stats.seq, stats.generation, stats.rows, stats.delta_rows, stats.dead_rows) == (4, 1, 9, 10, 1)
    assert stats.bytes >= 10 * DIMENSION * 4


def test_disk_stats_tell_the_kind_of_each_generation(bed: Bed) -> None:
    for first, count, vectors in ((0, 25, "float32"), (100, 6, "int8"), (200, 1, "float32")):
        with bed.writer(hnsw_rows=2, vectors=vectors) as writer:
            writer.publish(writer.seq + 1, rows(range(first, first + count)))
            writer.compact()
    stats = disk_stats(bed.root, STORE)
    assert stats is not None
    assert [(one.number, one.rows, one.kind) for one in stats.generations] == [
        (2, 25, "hnsw"),
        (3, 6, "hnsw-int8"),
        (4, 1, "flat"),
    ]
    assert all(0 < one.bytes < stats.bytes for one in stats.generations)


def test_a_removed_store_is_empty_for_those_who_come_and_whole_for_those_who_hold_it(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(4)))
    searchers = bed.searchers()
    with searchers.pin(STORE) as held:
        remove(bed.root, STORE)
        assert seen(searchers) == (0, set(), set())
        assert len(held.search(vector(0), ["all"], candidates=9).dense) == 4
    remove(bed.root, STORE)


def test_the_manifest_is_one_line_of_json(bed: Bed) -> None:
    bed.writer().publish(1, rows(range(4)))
    line = (bed.store / "MANIFEST").read_text()
    assert line.count("\n") == 1
    assert json.loads(line[9:])["delta_rows"] == 4
