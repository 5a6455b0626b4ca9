from __future__ import annotations

import threading

import numpy as np
import pytest

from index.conftest import STORE, Bed, row, rows, seen, vector
from ragagent.errors import Conflict, Damaged


def test_compaction_keeps_the_living_and_drops_the_dead(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(50)))
    writer.publish(2, dead=range(10), forget=range(10))
    writer.compact()
    assert (writer.manifest.generation_rows, writer.manifest.delta_rows, writer.manifest.dead_rows) == (40, 0, 0)
    assert seen(searchers) == (2, set(range(10, 50)), set(range(10, 50)))


def test_what_is_published_during_a_build_is_in_the_new_delta(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(20)))
    writer.compact()
    writer.publish(2, rows(range(20, 30)), dead=[0], forget=[0])
    with writer.begin_compaction() as build:
        thread = threading.Thread(target=build.run)
        thread.start()
        writer.publish(3, [row(40), row(1, seed=101), row(21, seed=121), row(41)], dead=[2, 22, 41], forget=[2, 22])
        writer.publish(4, dead=[40], forget=[40])
        thread.join()
        writer.finish_compaction(build)
    alive = (set(range(30)) | {41}) - {0, 2, 22}
    assert seen(searchers) == (4, alive, alive)
    assert writer.manifest.rows == len(alive)
    assert (writer.manifest.delta_rows, writer.manifest.dead_rows) == (3, 4)
    with searchers.pin(STORE) as searcher:
        for chunk, seed in ((1, 101), (21, 121), (41, 41), (5, 5), (25, 25)):
            [(best, score)] = searcher.search(vector(seed), [], candidates=1).dense
            assert (best, round(score, 4)) == (chunk, 1.0)


def test_rows_are_ordered_by_document(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(1, [row(1, 9), row(2, 3), row(3, 9), row(4, 1)])
    writer.compact()
    with bed.searchers().pin(STORE) as searcher:
        assert searcher._generations[-1].rows.tolist() == [[4, 1], [2, 3], [1, 9], [3, 9]]


def test_a_store_becomes_a_graph_at_its_size_and_flat_again_below_it(bed: Bed) -> None:
    writer, searchers = bed.writer(hnsw_rows=30), bed.searchers()
    writer.publish(1, rows(range(40)))
    kinds = []
    for seq in (2, 3):
        writer.compact()
        with searchers.pin(STORE) as searcher:
            kinds.append(searcher._generations[-1].kind)
        writer.publish(seq, dead=range(20), forget=range(20))
    assert kinds == ["hnsw", "flat"]
    assert seen(searchers)[1] == set(range(20, 40))


def test_a_large_generation_stays_as_it_is_and_its_dead_stay_dead(bed: Bed) -> None:
    writer, searchers = bed.writer(hnsw_rows=1), bed.searchers()
    writer.publish(1, rows(range(40)))
    writer.compact()
    with searchers.pin(STORE) as first:
        writer.publish(2, [*rows(range(40, 44)), row(7, seed=107)], dead=[3], forget=[3])
        writer.compact()
        assert [part.rows for part in writer.manifest.parts] == [40, 5]
        assert (writer.manifest.generation, writer.manifest.dead_rows) == (3, 2)
        with searchers.pin(STORE) as second:
            assert second._generations[0] is first._generations[0]
    alive = set(range(44)) - {3}
    assert seen(searchers) == (2, alive, alive)
    writer.publish(3, [row(9, seed=109)], dead=[7, 8, 42], forget=[7, 8, 42])
    writer.close()
    writer = bed.writer(hnsw_rows=1)
    writer.publish(4, [row(8, seed=108)])
    alive -= {7, 42}
    assert seen(searchers) == (4, alive, alive)
    with searchers.pin(STORE) as searcher:
        assert [searcher.search(vector(seed), [], candidates=1).dense[0][0] for seed in (108, 109, 43)] == [8, 9, 43]
    assert writer.prune() == []
    assert sorted(path.name for path in bed.store.iterdir() if path.name[0] == "0") == [
        "000002",
        "000003",
        "000003.delta",
    ]


def test_a_merge_takes_every_generation_that_is_no_larger(bed: Bed) -> None:
    writer, searchers = bed.writer(hnsw_rows=1), bed.searchers()
    sizes = []
    for seq, count in enumerate((40, 8, 4, 4, 100), start=1):
        writer.publish(seq, rows(range(1000 * seq, 1000 * seq + count)))
        writer.compact()
        sizes.append([part.rows for part in writer.manifest.parts])
    assert sizes == [[40], [40, 8], [40, 8, 4], [40, 16], [156]]
    with searchers.pin(STORE) as searcher:
        assert searcher.rows == 156


def test_bytes_are_not_cut_anew_by_every_merge(bed: Bed) -> None:
    writer, searchers = bed.writer(hnsw_rows=10, vectors="int8"), bed.searchers()
    kept = []
    for seq, count in enumerate((400, 100, 600), start=1):
        writer.publish(seq, rows(range(1000 * seq, 1000 * seq + count)))
        writer.compact()
        with searchers.pin(STORE) as searcher:
            assert {part.kind for part in searcher._generations} == {"hnsw-int8"}
            oldest = searcher._generations[0]
            kept.append(oldest.vectors.take(np.flatnonzero(oldest.rows[:, 0] < 2000)))
    assert [part.rows for part in writer.manifest.parts] == [1100]
    assert np.allclose(kept[0], np.stack([vector(1000 + n) for n in range(400)]), atol=0.01)
    assert np.array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], kept[2])


def test_a_filter_holds_in_every_generation(bed: Bed) -> None:
    writer = bed.writer(hnsw_rows=1)
    for seq, chunks in enumerate((range(40), range(40, 50), range(50, 53)), start=1):
        writer.publish(seq, [row(chunk, chunk % 5) for chunk in chunks])
        if seq < 3:
            writer.compact()
    assert len(writer.manifest.parts) == 2
    with bed.searchers().pin(STORE) as searcher:
        legs = searcher.search(vector(0), ["all"], candidates=100, documents=np.array([1, 3]))
        expected = {chunk for chunk in range(53) if chunk % 5 in (1, 3)}
        assert {chunk for chunk, _ in legs.dense} == {chunk for chunk, _ in legs.lexical} == expected
        scores = [score for _, score in legs.dense]
        assert scores == sorted(scores, reverse=True)


def test_damaged_vectors_are_not_copied_under_a_checksum_that_fits(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(1, rows(range(20)))
    writer.compact()
    path = bed.store / "000002" / "vectors.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    writer.publish(2, rows([30]))
    with pytest.raises(Damaged, match="checksum"):
        writer.compact()
    assert writer.manifest.generation == 2


def test_everything_may_die(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(5)))
    writer.publish(2, dead=range(5), forget=range(5))
    writer.compact()
    assert seen(searchers) == (2, set(), set())
    writer.publish(3, rows([3]))
    assert seen(searchers) == (3, {3}, {3})


def test_a_large_delta_or_many_dead_ask_for_compaction(bed: Bed) -> None:
    writer = bed.writer(max_delta_rows=2000)
    asked = []
    writer.publish(1, rows(range(2000)))
    asked.append(writer.needs_compaction)
    writer.publish(2, dead=range(1000))
    asked.append(writer.needs_compaction)
    writer.publish(3, dead=[1500])
    asked.append(writer.needs_compaction)
    writer.compact()
    asked.append(writer.needs_compaction)
    writer.publish(4, rows(range(3000, 5001)))
    asked.append(writer.needs_compaction)
    assert asked == [False, False, True, False, True]


def test_a_closed_writer_cancels_its_build(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(1, rows(range(20)))
    with writer.begin_compaction() as build:
        writer.close()
        with pytest.raises(Conflict, match="cancelled"):
            build.run()
    again = bed.writer()
    again.compact()
    assert seen(bed.searchers()) == (1, set(range(20)), set(range(20)))


def test_a_cancelled_build_leaves_the_writer_as_it_was(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(20)))
    with writer.begin_compaction() as build:
        build.cancel()
        with pytest.raises(Conflict, match="cancelled"):
            build.run()
        with pytest.raises(Conflict, match="not built"):
            writer.finish_compaction(build)
    writer.publish(2, rows([30]))
    writer.compact()
    assert seen(searchers) == (2, {*range(20), 30}, {*range(20), 30})


def test_one_build_at_a_time_and_each_finished_once(bed: Bed) -> None:
    writer = bed.writer()
    with writer.begin_compaction() as build:
        with pytest.raises(Conflict, match="building generation 2 already"):
            writer.begin_compaction()
        build.run()
        writer.finish_compaction(build)
        with pytest.raises(Conflict, match="not built"):
            writer.finish_compaction(build)


def test_prune_spares_what_a_pin_holds(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows(range(5)))
    with searchers.pin(STORE) as held:
        writer.compact()
        assert seen(searchers) == (1, set(range(5)), set(range(5)))
        assert writer.prune() == []
        assert len(held.search(vector(0), [], candidates=9).dense) == 5
    assert writer.prune() == [1]
    assert sorted(path.name for path in bed.store.iterdir() if path.name[0] == "0") == ["000002", "000002.delta"]


def test_a_generation_built_in_batches_is_whole(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragagent.index.compaction._BATCH", 7)
    writer = bed.writer(hnsw_rows=1)
    writer.publish(1, rows(range(20)))
    writer.compact()
    writer.publish(2, rows(range(20, 40)))
    writer.compact()
    with bed.searchers().pin(STORE) as searcher:
        ids = searcher._generations[-1].rows[:, 0]
        expected = np.stack([vector(int(chunk)) for chunk in ids])
        assert np.array_equal(searcher._generations[-1].vectors.take(np.arange(len(ids))), expected)
