from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from index.conftest import STORE, Bed, rows, seen, vector
from ragagent.errors import Conflict, Damaged
from ragagent.index import lock
from ragagent.index.generation import Generation


def test_a_store_without_a_manifest_is_empty_at_seq_0(bed: Bed) -> None:
    searchers = bed.searchers()
    assert searchers.seq("vs_none") == 0
    with searchers.pin("vs_none") as searcher:
        legs = searcher.search(vector(0), ["all"], candidates=5)
        assert (searcher.seq, searcher.rows, legs.dense, legs.lexical) == (0, 0, [], [])
        assert searcher.doc_freqs(["all"]) == {"all": 0}


def test_a_store_made_after_the_first_look_is_found(bed: Bed) -> None:
    searchers = bed.searchers()
    assert searchers.seq(STORE) == 0
    with searchers.pin(STORE):
        bed.writer().publish(1, rows([1]))
        assert searchers.seq(STORE) == 1
        assert seen(searchers) == (1, {1}, {1})


def test_a_pin_stays_as_it_was_while_newer_ones_see_more(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows([1]))
    with searchers.pin(STORE) as old:
        writer.publish(2, rows([2]), dead=[1], forget=[1])
        assert seen(searchers) == (2, {2}, {2})
        legs = old.search(vector(1), ["all"], candidates=5)
        assert ([c for c, _ in legs.dense], [c for c, _ in legs.lexical]) == ([1], [1])


def test_an_unchanged_manifest_gives_the_same_searcher(bed: Bed) -> None:
    searchers = bed.searchers()
    bed.writer().publish(1, rows([1]))
    with searchers.pin(STORE) as one, searchers.pin(STORE) as two:
        assert one is two


def test_to_ask_for_a_seq_pushes_no_searcher_out(bed: Bed) -> None:
    bed.writer().publish(1, rows([1]))
    bed.writer("vs_other").publish(3, rows([1]))
    searchers = bed.searchers(capacity=1)
    with searchers.pin(STORE) as one:
        pass
    assert (searchers.seq("vs_other"), searchers.seq("vs_none"), searchers.seq(STORE)) == (3, 0, 1)
    with searchers.pin(STORE) as two:
        assert one is two


def test_a_publish_keeps_the_generation_mapped_and_a_compaction_replaces_it(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    with searchers.pin(STORE) as one:
        writer.publish(1, rows([1]))
        with searchers.pin(STORE) as two:
            assert one._generations[0] is two._generations[0]
            writer.compact()
            with searchers.pin(STORE) as three:
                assert three._generations[0] is not two._generations[0]


def test_an_index_made_anew_is_not_taken_for_the_old_one_of_the_same_number(bed: Bed) -> None:
    searchers = bed.searchers()
    with bed.writer() as writer:
        writer.publish(1, rows([1, 2, 3]))
        writer.compact()
    assert seen(searchers)[0] == 1
    with bed.recreated() as writer:
        writer.publish(1, rows([7]))
        writer.compact()
        assert writer.manifest.generation == 2
    assert seen(searchers) == (1, {7}, {7})


def test_the_last_pin_of_an_old_searcher_lets_its_generation_go(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    path = bed.store / "000001" / "LOCK"
    with searchers.pin(STORE), searchers.pin(STORE):
        writer.compact()
        with searchers.pin(STORE):
            assert lock.exclusive(path) is None
    freed = lock.exclusive(path)
    assert freed is not None
    freed.close()


def test_the_store_used_longest_ago_gives_way(bed: Bed) -> None:
    for store_id in ("vs_a", "vs_b", "vs_c"):
        bed.writer(store_id).publish(1, rows([1]))
    searchers = bed.searchers(capacity=2)

    def is_open(store_id: str) -> bool:
        held = lock.exclusive(bed.root / store_id / "000001" / "LOCK")
        if held is not None:
            held.close()
        return held is None

    with searchers.pin("vs_a") as pinned:
        for store_id in ("vs_b", "vs_c"):
            with searchers.pin(store_id):
                pass
        assert [is_open(store_id) for store_id in ("vs_a", "vs_b", "vs_c")] == [True, True, True]
        assert pinned.search(vector(1), [], candidates=1).dense[0][0] == 1
    assert [is_open(store_id) for store_id in ("vs_a", "vs_b", "vs_c")] == [False, True, True]
    assert seen(searchers, "vs_a") == (1, {1}, {1})


def test_closed_searchers_hold_nothing_and_open_nothing(bed: Bed) -> None:
    bed.writer().publish(1, rows([1]))
    searchers = bed.searchers()
    with searchers.pin(STORE) as pinned:
        searchers.close()
        assert len(pinned.search(vector(1), ["all"], candidates=1).dense) == 1
    held = lock.exclusive(bed.store / "000001" / "LOCK")
    assert held is not None
    held.close()
    with pytest.raises(Conflict, match="closed"), searchers.pin(STORE):
        pass


def test_a_generation_pruned_between_manifest_and_lock_is_read_anew(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows([1]))
    really_open = Generation.open
    late = iter([True])

    def open_late(*arguments: object) -> Generation:
        if next(late, False):
            writer.compact()
            assert writer.prune() == [1]
        return really_open(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Generation, "open", open_late)
    assert seen(searchers) == (1, {1}, {1})


def test_threads_share_searchers_while_the_store_changes(bed: Bed) -> None:
    writer, searchers = bed.writer(), bed.searchers(capacity=1)
    bed.writer("vs_other").publish(1, rows([1]))
    writer.publish(1, rows([1]))
    stop = threading.Event()

    def look() -> int:
        rounds = 0
        while not stop.is_set():
            with searchers.pin(STORE) as searcher:
                legs = searcher.search(vector(1), ["w1"], candidates=1)
                assert legs.dense[0][0] == 1
                assert legs.lexical[0][0] == 1
            seen(searchers, "vs_other")  # pushes the other store out, under the feet of the other threads
            rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as threads:
        looking = [threads.submit(look) for _ in range(4)]
        for seq in range(2, 30):
            writer.publish(seq, rows([seq]))
            if seq % 5 == 0:
                writer.compact()
                writer.prune()
        stop.set()
        assert all(one.result(timeout=30) > 0 for one in looking)


def test_a_store_that_nobody_pins_any_more_lets_its_generation_go(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragagent.index.searchers._FOLLOW_SECONDS", 0.01)
    writer, searchers = bed.writer(), bed.searchers()
    writer.publish(1, rows([1]))
    assert seen(searchers) == (1, {1}, {1})
    writer.compact()
    deadline = time.monotonic() + 20
    while writer.prune() != [1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (bed.store / "000002" / "LOCK").unlink()
    writer.publish(2, rows([2]))
    while searchers._shelves[STORE]._searcher is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Damaged, match="lacks a generation"):
        seen(searchers)


def test_nothing_stays_open_after_close(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1]))

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for seq in range(2, 8):
        searchers = bed.searchers()
        seen(searchers)
        writer.publish(seq, rows([seq]))
        seen(searchers)
        searchers.close()
    assert descriptors() == before
