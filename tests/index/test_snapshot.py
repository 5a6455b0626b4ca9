"""What one manifest names, held and copied while the writer goes on: a copy opens as the store did at that moment."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from index.conftest import STORE, Bed, rows, seen
from ragagent.errors import Damaged
from ragagent.index import directory, files, lexical, manifest, snapshot
from ragagent.index.lexical import Lexical
from ragagent.index.searchers import Searchers
from ragagent.index.snapshot import Snapshot


def copied(found: Snapshot, root: Path) -> Path:
    for part in found.parts:
        path = root / STORE / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.pread(part.descriptor, part.bytes, 0))
    return root


def shown(root: Path) -> tuple[int, set[int], set[int]]:
    with closing(Searchers(root, ef_search=64)) as searchers:
        return seen(searchers)


def test_a_copy_shows_what_the_store_showed(bed: Bed, tmp_path: Path) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1, 2, 3, 4]))
    writer.compact()
    writer.publish(2, rows([5, 6]), dead=[2], forget=[2])
    with snapshot.taken(bed.store) as found:
        assert found is not None
        assert found.manifest == writer.manifest
        assert shown(copied(found, tmp_path / "copy")) == shown(bed.root) == (2, {1, 3, 4, 5, 6}, {1, 3, 4, 5, 6})


def test_what_is_held_stays_what_it_was_whatever_the_writer_does(bed: Bed, tmp_path: Path) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1, 2, 3]))
    with snapshot.taken(bed.store) as found:
        assert found is not None
        before = found.manifest.generation
        for seq in range(2, 12):
            writer.publish(seq, rows([seq * 10]), dead=[seq * 10 - 10], forget=[seq * 10 - 10])
        writer.compact()
        assert writer.prune() == [before]
        bed.recreated()
        assert shown(copied(found, tmp_path / "copy")) == (1, {1, 2, 3}, {1, 2, 3})


def test_a_copy_can_be_written_on(bed: Bed, tmp_path: Path) -> None:
    bed.writer().publish(1, rows([1, 2]))
    with snapshot.taken(bed.store) as found:
        assert found is not None
        copied(found, tmp_path / "copy")
    other = Bed(tmp_path / "copy", bed.closing)
    other.writer().publish(2, rows([3]), dead=[1], forget=[1])
    assert shown(other.root) == (2, {2, 3}, {2, 3})


def test_a_manifest_that_is_replaced_while_it_is_read_gets_another_try(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1, 2]))
    named_files = directory.named_files

    def too_late(store: Path, current: manifest.Manifest) -> dict[str, int | None]:
        if current.generation == 1:
            writer.compact()
            writer.prune()
        return named_files(store, current)

    monkeypatch.setattr(directory, "named_files", too_late)
    with snapshot.taken(bed.store) as found:
        assert found is not None
        assert found.manifest.generation == 2
        assert shown(copied(found, tmp_path / "copy")) == (1, {1, 2}, {1, 2})


def test_nothing_published_is_nothing_to_hold(bed: Bed) -> None:
    assert snapshot.stores(bed.root) == []
    with snapshot.taken(bed.store) as found:
        assert found is None
    bed.store.mkdir(parents=True)
    with snapshot.taken(bed.store) as found:
        assert found is None
    assert snapshot.stores(bed.root) == [bed.store]


@pytest.mark.parametrize("name", ["000001/vectors.faiss", "000001.delta/rows.i64", "lexical/meta.json"])
def test_what_is_missing_under_a_manifest_that_stands_is_damage(bed: Bed, name: str) -> None:
    bed.writer().publish(1, rows([1]))
    folder = bed.store / name
    files.remove(folder if "faiss" not in name else folder.parent)
    with pytest.raises(Damaged, match="lacks"), snapshot.taken(bed.store):
        pass


def test_a_file_that_is_shorter_than_counted_is_damage(bed: Bed) -> None:
    bed.writer().publish(1, rows([1, 2]))
    os.truncate(bed.store / "000001.delta" / "vectors.f32", 10)
    with pytest.raises(Damaged, match="has 10 bytes; its manifest counts 128"), snapshot.taken(bed.store):
        pass


@pytest.mark.parametrize("name", ["MANIFEST", "lexical/meta.json"])
def test_a_name_list_that_cannot_be_read_is_damage(bed: Bed, name: str) -> None:
    bed.writer().publish(1, rows([1]))
    (bed.store / name).write_bytes(b"{}")
    with pytest.raises(Damaged), snapshot.taken(bed.store):
        pass


def test_descriptors_are_closed(bed: Bed) -> None:
    bed.writer().publish(1, rows([1]))
    before = os.listdir("/proc/self/fd")
    with snapshot.taken(bed.store):
        assert len(os.listdir("/proc/self/fd")) > len(before)
    shutil.rmtree(bed.store / "000001")
    with pytest.raises(Damaged), snapshot.taken(bed.store):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_both_legs_tell_which_chunks_they_hold(bed: Bed) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1, 2, 3, 40]))
    writer.compact()
    writer.publish(2, rows([50]), dead=[2], forget=[2])
    assert directory.chunk_ids(bed.store, writer.manifest).tolist() == [1, 2, 3, 40, 50], "dead ones included"
    view = Lexical(bed.store / lexical.NAME).view()
    assert sorted(view.chunk_ids(1, 40).tolist()) == [1, 3, 40]
    assert view.chunk_ids(51, 60).tolist() == []
