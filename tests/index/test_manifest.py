from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ragagent.errors import Damaged
from ragagent.index import manifest
from ragagent.index.manifest import Manifest, Part, Sums

ONE = Manifest("vs_test", 7, (Part(2, 60), Part(3, 40)), 20, 5, Sums(1, 2, 3), 9, "模型-a", 16, 1.5)


def test_a_published_manifest_reads_back(tmp_path: Path) -> None:
    published = manifest.publish(tmp_path, ONE)
    found = manifest.read(tmp_path)
    assert found == (manifest.stamp(tmp_path), published)
    assert dataclasses.replace(published, published_at=1.5) == ONE
    assert (published.generation, published.generation_rows, published.rows) == (3, 100, 115)


def test_no_manifest_is_none_and_not_an_error(tmp_path: Path) -> None:
    assert manifest.read(tmp_path / "nowhere") is None
    assert manifest.stamp(tmp_path / "nowhere") is None


def test_every_flipped_bit_is_noticed() -> None:
    data = manifest.encode(ONE)
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(Damaged):
            manifest.decode(bytes(flipped))


def test_every_truncation_is_noticed() -> None:
    data = manifest.encode(ONE)
    for length in range(len(data)):
        with pytest.raises(Damaged):
            manifest.decode(data[:length])


def test_another_format_is_refused() -> None:
    with pytest.raises(Damaged, match="format 1; this version reads format 2"):
        manifest.decode(manifest.encode(dataclasses.replace(ONE, format=1)))


def test_each_publish_changes_the_stamp_however_fast_they_follow(tmp_path: Path) -> None:
    """Two in one tick of the kernel's clock used to be able to bear the same time, inode and size."""
    stamps = []
    for seq in range(50):
        manifest.publish(tmp_path, dataclasses.replace(ONE, seq=100 + seq))
        stamps.append(manifest.stamp(tmp_path))
    assert len(set(stamps)) == 50


def test_a_stale_temporary_file_does_not_stop_a_publish(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.tmp").write_bytes(b"torn")
    manifest.publish(tmp_path, ONE)
    assert manifest.read(tmp_path) is not None
    assert not (tmp_path / "MANIFEST.tmp").exists()
