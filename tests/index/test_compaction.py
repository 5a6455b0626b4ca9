from __future__ import annotations

import threading

import numpy as np
import pytest

from index.conftest import STORE, Bed, row, rows, seen, vector
from ragagent.errors import Conflict


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
        assert searcher._generation.rows.tolist() == [[4, 1], [2, 3], [1, 9], [3, 9]]


def test_a_store_becomes_a_graph_at_its_size_and_flat_again_below_it(bed: Bed) -> None:
    writer, searchers = bed.writer(hnsw_rows=30), bed.searchers()
    writer.publish(1, rows(range(40)))
    kinds = []
    for seq in (2, 3):
        writer.compact()
        with searchers.pin(STORE) as searcher:
            kinds.append(type(searcher._generation._index).__name__)
        writer.publish(seq, dead=range(20), forget=range(20))
    assert kinds == ["IndexHNSWFlat", "IndexFlatIP"]
    assert seen(searchers)[1] == set(range(20, 40))


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
        ids = searcher._generation.rows[:, 0]
        expected = np.stack([vector(int(chunk)) for chunk in ids])
        assert np.array_equal(searcher._generation.vectors, expected)
