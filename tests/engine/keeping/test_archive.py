"""The file of a backup: what goes in comes out, and whatever is not what was written is refused."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ragagent.engine.keeping import archive
from ragagent.engine.keeping.archive import Listing
from ragagent.errors import Conflict, Damaged

FILES = {
    "index/vs_a/MANIFEST": b"manifest",
    "index/vs_a/000001/rows.i64": b"\x00" * 5000,
    "index/vs_a-2/lexical/.managed.json": b"[]",
    "pepper": b"p" * 32,
    "ragagent.db": random.Random(1).randbytes(100_000),
}
LISTING = Listing("0.1.0", 2, 1_700_000_000, 7, {"vs_a": 5})


def ignore(count: int) -> None:
    pass


def written(path: Path, files: Mapping[str, bytes] = FILES) -> Listing:
    source = path.with_name("source")
    with path.open("wb") as file:
        writer = archive.Writer(file, 1_700_000_000, ignore)
        for name, data in files.items():
            source.write_bytes(data)
            writer.add_path(name, source)
        return writer.finish(LISTING)


def packed(path: Path, members: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """Write an archive by hand, from members that no writer of ours would write."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(held.getvalue()))
    return path


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("ragagent-backup-1/index/vs_a/MANIFEST")
    info.type, info.linkname = kind, target
    return info


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    listing = written(tmp_path / "a")
    counted: list[int] = []
    assert archive.read(tmp_path / "a", counted.append, (tmp_path / "out").joinpath) == listing
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == FILES
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o600}
    assert sum(counted) == listing.bytes == sum(map(len, FILES.values()))
    assert (listing.seq, listing.stores, listing.format) == (7, {"vs_a": 5}, 1)
    assert "files" not in listing.summary()


def test_tar_and_zstd_read_it_as_well(tmp_path: Path) -> None:
    written(tmp_path / "a")
    plain = zstandard.ZstdDecompressor().stream_reader((tmp_path / "a").read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert tar.getnames() == [f"ragagent-backup-1/{name}" for name in (*FILES, "backup.json")]
        told = json.load(tar.extractfile("ragagent-backup-1/backup.json") or io.BytesIO())
    assert told["files"]["pepper"]["bytes"] == 32


@pytest.mark.parametrize("seed", range(40))
def test_one_bit_turned_anywhere_is_found(tmp_path: Path, seed: int) -> None:
    written(tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    chance = random.Random(seed)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(Damaged):
        archive.read(tmp_path / "a", ignore)


@pytest.mark.parametrize("kept", [0, 1, 10, 5000, -10_000, -1000, -5, -4, -1])
def test_an_archive_that_is_cut_off_is_found(tmp_path: Path, kept: int) -> None:
    written(tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:kept])
    with pytest.raises(Damaged):
        archive.read(tmp_path / "a", ignore)


def test_nothing_may_stand_behind_the_end(tmp_path: Path) -> None:
    written(tmp_path / "a")
    with (tmp_path / "a").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Damaged, match="behind its end"):
        archive.read(tmp_path / "a", ignore)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../ragagent.db",
        "ragagent-backup-1/../ragagent.db",
        "ragagent-backup-1/index/../../x",
        "ragagent-backup-1/index/vs_a/..",
        "ragagent-backup-1/index/vs_a/../../../x",
        "ragagent-backup-1/index/vs_a//x",
        "ragagent-backup-1//ragagent.db",
        "ragagent-backup-1/supervisor.pid",
        "ragagent-backup-x/ragagent.db",
        "readme.txt",
    ],
)
def test_a_name_that_no_backup_has_is_refused(tmp_path: Path, name: str) -> None:
    room = tmp_path / "deep" / "room"
    room.mkdir(parents=True)
    with pytest.raises(Damaged, match="no backup"):
        archive.read(packed(tmp_path / "a", [(name, b"evil")]), ignore, room.joinpath)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "a"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_plain_files_are_taken(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(Damaged, match="no plain file"):
        archive.read(packed(tmp_path / "a", [link(kind, "/etc/passwd")]), ignore, (tmp_path / "room").joinpath)
    assert not (tmp_path / "room").exists()


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    twice = [("ragagent-backup-1/pepper", b"a"), ("ragagent-backup-1/pepper", b"b")]
    with pytest.raises(Damaged, match="twice"):
        archive.read(packed(tmp_path / "a", twice), ignore, (tmp_path / "room").joinpath)


def test_another_format_is_refused_at_its_first_member(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="format 2, and this version reads format 1"):
        archive.read(packed(tmp_path / "a", [("ragagent-backup-2/whatever", b"")]), ignore)


def listing(**fields: Any) -> tuple[str, bytes]:
    found = {"ragagent": "0", "schema": 1, "created_at": 0, "seq": 0, "stores": {}, "files": {}, "format": 1}
    return "ragagent-backup-1/backup.json", json.dumps({**found, **fields}).encode()


DATABASE = ("ragagent-backup-1/ragagent.db", b"x")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([DATABASE], "ends early"),
        ([DATABASE, listing()], "is not what was written"),
        ([listing(files={"ragagent.db": {"bytes": 1, "sha256": ""}})], "lacks 'ragagent.db'"),
        ([listing()], "no database"),
        ([DATABASE, ("ragagent-backup-1/backup.json", b"[]")], "no whole backup"),
        ([DATABASE, ("ragagent-backup-1/backup.json", b"{}")], "no whole backup"),
        ([DATABASE, listing(unknown=1)], "no whole backup"),
        ([listing(), DATABASE, listing()], "twice"),
    ],
)
def test_a_listing_that_does_not_fit_is_refused(tmp_path: Path, members: list[tuple[str, bytes]], reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        archive.read(packed(tmp_path / "a", members), ignore)
