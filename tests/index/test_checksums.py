from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from ragagent.errors import Damaged
from ragagent.index import checksums
from ragagent.index.checksums import Checksum


def test_a_checksum_is_over_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_BLOCK", 100)
    for size in (0, 1, 99, 100, 101, 1000):
        data = bytes(range(256)) * 4
        (tmp_path / "file").write_bytes(data[:size])
        assert checksums.of_file(tmp_path / "file") == Checksum(size, zlib.crc32(data[:size]))


def test_what_was_noted_reads_back_and_a_changed_length_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    checksums.write(tmp_path, ["a"])
    assert checksums.read(tmp_path) == {"a": Checksum(5, zlib.crc32(b"12345"))}
    (tmp_path / "a").write_bytes(b"123456")
    with pytest.raises(Damaged, match="has 6 bytes; 5 were written"):
        checksums.read(tmp_path)


def test_a_damaged_list_is_damage(tmp_path: Path) -> None:
    (tmp_path / "CHECKSUMS").write_bytes(b"nothing of the kind")
    with pytest.raises(Damaged, match="CHECKSUMS"):
        checksums.read(tmp_path)
