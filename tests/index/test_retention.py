from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from index.conftest import STORE, Bed, row, rows, seen, vector
from ragagent.errors import Conflict, Damaged
from ragagent.index.directory import disk_stats
from ragagent.index.verify import verify
from ragagent.index.writer import Writer

PLENTY = 10**9


def grown(bed: Bed, hnsw_rows: int = 10_000) -> Writer:
    """Generations 2 of seq 1, 3 of seq 2 and 4 of seq 3: each of ten chunks more, and chunk seq * 10 replaced."""
    writer = bed.writer(hnsw_rows=hnsw_rows, retain_bytes=PLENTY)
    for seq in (1, 2, 3):
        writer.publish(seq, [*rows(range(seq * 10, seq * 10 + 10)), row((seq - 1) * 10, seed=seq)])
        writer.compact()
        writer.prune()
    return writer


def test_what_is_superseded_is_kept_within_its_bytes_and_the_oldest_goes_first(bed: Bed) -> None:
    writer = grown(bed)
    assert [(one.number, one.seq, one.rows) for one in writer.retained()] == [(3, 3, 31), (2, 2, 21), (1, 1, 11)]
    stats = disk_stats(bed.root, STORE)
    assert stats is not None
    assert list(stats.retained) == writer.retained()
    newest = writer.retained()[0].bytes
    assert newest > 0
    writer.close()
    writer = bed.writer(retain_bytes=newest)
    assert [one.number for one in writer.retained()] == [3]
    assert sorted(path.name for path in bed.store.iterdir() if path.name[0] in "0M") == [
        "000003",
        "000003.delta",
        "000004",
        "000004.delta",
        "MANIFEST",
        "MANIFEST.000003",
    ]
    writer.close()
    assert bed.writer().retained() == []
    assert sorted(path.name for path in bed.store.iterdir()) == ["000004", "000004.delta", "MANIFEST", "lexical"]


@pytest.mark.parametrize("hnsw_rows", [1, 10_000], ids=["tiers", "one"])
def test_a_store_set_back_and_replayed_is_as_it_was(bed: Bed, hnsw_rows: int) -> None:
    writer, searchers = grown(bed, hnsw_rows=hnsw_rows), bed.searchers()
    writer.publish(4, dead=[11, 25], forget=[11, 25])
    before = seen(searchers)
    living = np.setdiff1d(np.array([0, *range(10, 40)]), [11, 25])
    writer.roll_back(3, living)
    # The delta of generation 3 had what came at seq 3. Erased chunks are gone, and the lexical leg is newer.
    seq, dense, lexical = seen(searchers)
    assert (seq, writer.seq) == (3, 3)
    assert dense == before[1]
    assert lexical == before[2]
    assert verify(bed.root, STORE) == []
    writer.roll_back(2, living)
    assert seen(searchers)[:2] == (2, set(living.tolist()) - set(range(30, 40)))
    writer.publish(2, [*rows(range(30, 40)), row(20, seed=3)])
    writer.publish(4)
    assert seen(searchers) == before
    with searchers.pin(STORE) as searcher:
        assert searcher.search(vector(3), [], candidates=1).dense[0][0] == 20
    writer.close()
    assert seen(searchers) == before
    writer = bed.writer(hnsw_rows=hnsw_rows)
    writer.compact()
    writer.prune()
    assert seen(searchers) == before
    assert verify(bed.root, STORE) == []


def test_only_what_is_retained_and_whole_is_shown_again(bed: Bed) -> None:
    writer, searchers = grown(bed), bed.searchers()
    before = seen(searchers)
    for number in (4, 7):
        with pytest.raises(Conflict, match=f"retains no generation {number}"):
            writer.roll_back(number, np.arange(100))
    path = bed.store / "000003" / "vectors.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="checksum"):
        writer.roll_back(3, np.arange(100))
    with writer.begin_compaction(), pytest.raises(Conflict, match="is building"):
        writer.roll_back(2, np.arange(100))
    assert seen(searchers) == before
    writer.publish(5)


def test_a_torn_note_is_no_way_back_and_stops_nothing(bed: Bed) -> None:
    with grown(bed) as writer:
        manifest = writer.manifest
    (bed.store / "MANIFEST.000003").write_bytes(b"torn")
    writer = bed.writer(retain_bytes=PLENTY)
    assert [one.number for one in writer.retained()] == [2, 1]
    assert dataclasses.replace(writer.manifest, published_at=manifest.published_at) == manifest
