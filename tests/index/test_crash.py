"""Every step that a writer takes on the disk is the last one of some process here."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from index.conftest import STORE, Bed, row, rows, seen, vector
from ragagent.index.searchers import Searchers

OLD = set(range(8))
NEW = (OLD | set(range(8, 12))) - {1, 2}


def copies(bed: Bed, work: str) -> list[Bed]:
    """Return the roots in which `work` died, at an earlier step each; the last one survived."""
    child = bed.child("crash", work)
    out = child.communicate(timeout=90)[0].split()
    assert child.returncode == 0
    assert out[1:] == ["0"], f"died of something else: {out}"
    assert int(out[0]) > 2
    return [Bed(Path(f"{bed.root.parent}/crash-{number}"), bed.closing) for number in range(int(out[0]) + 1)]


def test_a_crash_in_publish_leaves_the_old_state_or_the_new(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(8)))
    found = []
    for copy in copies(bed, "publish"):
        seq, dense, lexical = seen(copy.searchers())
        assert dense == (OLD if seq == 1 else NEW)
        assert lexical in ([OLD, NEW] if seq == 1 else [NEW])  # newer than the manifest, never older
        found.append((seq, lexical == NEW))
        with copy.writer() as writer:
            assert writer.seq == seq
            writer.publish(2, [*rows(range(8, 12)), row(0, seed=100)], dead=[1, 2], forget=[1, 2])
        searchers = copy.searchers()
        assert seen(searchers) == (2, NEW, NEW)
        with searchers.pin(STORE) as searcher:
            assert searcher.rows == len(NEW)
            assert searcher.search(vector(100), [], candidates=1).dense[0][0] == 0
    assert found == sorted(found)
    assert {(1, False), (1, True), (2, True)} == set(found)


def test_a_crash_in_compaction_loses_nothing_and_leaves_nothing_behind(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(8)), dead=[])
        writer.publish(2, dead=[1, 2], forget=[1, 2])
    alive = OLD - {1, 2}
    generations = set()
    for copy in copies(bed, "compact"):
        assert seen(copy.searchers()) == (2, alive, alive)
        with copy.writer() as writer:
            generations.add(writer.manifest.generation)
            kept = f"{writer.manifest.generation:06d}"
        # A searcher of this process holds no generation any more: what is not named is gone.
        assert {path.name for path in copy.store.iterdir()} == {kept, f"{kept}.delta", "lexical", "MANIFEST"}
        assert seen(copy.searchers()) == (2, alive, alive)
    assert generations == {1, 2}


def test_a_crash_in_a_merge_keeps_the_large_generation_and_its_dead(bed: Bed) -> None:
    with bed.writer(hnsw_rows=1) as writer:
        writer.publish(1, rows(range(8)))
        writer.compact()
        writer.publish(2, [*rows(range(20, 23))], dead=[1, 2], forget=[1, 2])
    alive = (OLD | {20, 21, 22}) - {1, 2}
    found = set()
    for copy in copies(bed, "merge"):
        assert seen(copy.searchers()) == (2, alive, alive)
        with copy.writer(hnsw_rows=1) as writer:
            numbers = [f"{part.number:06d}" for part in writer.manifest.parts]
            found.add(tuple(numbers))
            assert {path.name for path in copy.store.iterdir()} == {
                *numbers,
                f"{numbers[-1]}.delta",
                "lexical",
                "MANIFEST",
            }
            writer.publish(3, dead=[3, 20], forget=[3, 20])
        assert seen(copy.searchers()) == (3, alive - {3, 20}, alive - {3, 20})
    assert found == {("000002",), ("000002", "000003")}


def test_a_crash_in_a_merge_that_retains_leaves_a_way_back_or_none(bed: Bed) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(8)))
    found = set()
    for copy in copies(bed, "retain"):
        assert seen(copy.searchers()) == (1, OLD, OLD)
        with copy.writer(retain_bytes=10**9) as writer:
            found.add((writer.manifest.generation, tuple(one.number for one in writer.retained())))
            for one in writer.retained():
                writer.roll_back(one.number, np.arange(8))
        assert seen(copy.searchers()) == (1, OLD, OLD)
    assert found == {(1, ()), (2, (1,))}


def test_a_crash_in_going_back_leaves_the_new_state_or_the_old(bed: Bed) -> None:
    with bed.writer(retain_bytes=10**9) as writer:
        writer.publish(1, rows(range(8)))
        writer.compact()
        writer.publish(2, rows(range(8, 12)), dead=[1, 2], forget=[1, 2])
        writer.compact()
    found = set()
    for copy in copies(bed, "back"):
        seq, dense, lexical = seen(copy.searchers())
        found.add(seq)
        assert dense == (NEW if seq == 2 else OLD - {1, 2})
        assert lexical == NEW
        with copy.writer(retain_bytes=10**9) as writer:
            if seq == 2:
                writer.roll_back(1, np.array(sorted(NEW)))
            writer.publish(2, rows(range(8, 12)))
        assert seen(copy.searchers()) == (2, NEW, NEW)
    assert found == {1, 2}


@pytest.mark.parametrize("work", ["create", "recreate"])
def test_a_crash_in_making_a_store_leaves_one_that_can_be_made(bed: Bed, work: str) -> None:
    with bed.writer() as writer:
        writer.publish(1, rows(range(8)))
    for copy in copies(bed, work):
        store_id = "vs_new" if work == "create" else STORE
        assert seen(copy.searchers(), store_id) in [(0, set(), set()), (1, OLD, OLD)]
        with copy.writer(store_id) as writer:
            writer.publish(5, rows(range(3)))
        assert seen(copy.searchers(), store_id)[0] == 5


def test_kill_9_at_any_moment_loses_nothing_acknowledged(bed: Bed) -> None:
    """Seq n adds chunk n and removes chunk n - 5, so that the seq alone says what must be there."""
    acknowledged = 0
    for _ in range(5):
        child = bed.child("publish")
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.uniform(0, 0.2))
        child.kill()
        lines = child.communicate(timeout=10)[0].split()
        acknowledged = max(acknowledged, *map(int, lines)) if lines else acknowledged
        seq, dense, _ = seen(bed.searchers())
        assert seq >= acknowledged
        assert dense == set(range(max(seq - 4, 1), seq + 1))
        acknowledged = seq
    assert acknowledged > 5


def test_a_reader_that_comes_in_between_sees_the_old_state(bed: Bed) -> None:
    """Bytes beyond the manifest's counts do not exist, whoever looks while they are written."""
    writer = bed.writer()
    writer.publish(1, rows(range(4)))
    searchers = Searchers(bed.root, ef_search=64)
    with open(bed.store / "000001.delta" / "vectors.f32", "ab") as file:
        file.write(b"\xff" * 4000)
    assert seen(searchers) == (1, {0, 1, 2, 3}, {0, 1, 2, 3})
    searchers.close()
