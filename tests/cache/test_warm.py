from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.cache import warm
from ragagent.cache.erasing.tags import Tag
from ragagent.cache.warm import Warm

ASCII = st.text(st.characters(codec="ascii"), max_size=130)
TAGS = st.lists(st.builds(Tag, ASCII, st.integers(0, 2**62), st.integers(0, 2**62)), max_size=3).map(tuple)
ENTRIES = st.lists(st.builds(Warm, ASCII, TAGS, st.binary(max_size=300)), max_size=20)
SOME = [
    Warm("rag:1:-:embedding:1", (), b"one"),
    Warm("rag:1:{t}:answer:2", (Tag("vs_1", 7, 6), Tag("vs_2", 9, 9)), b"two"),
]


@given(ENTRIES)
def test_what_was_packed_comes_out(entries: list[Warm]) -> None:
    packed = warm.pack(entries)
    assert warm.unpack(packed) == entries
    assert len(packed) <= sum(entry.size for entry in entries) + 32


@given(st.binary(), st.integers(0, 10_000), st.integers(0, 255))
def test_nothing_comes_out_of_anything_else(garbage: bytes, place: int, byte: int) -> None:
    packed = warm.pack(SOME)
    assert warm.unpack(garbage) == []
    assert warm.unpack(packed + (garbage or b"\0")) == []
    assert warm.unpack(packed[: place % len(packed)]) == []
    damaged = bytearray(packed)
    damaged[place % len(packed)] = byte
    assert warm.unpack(bytes(damaged)) == (SOME if damaged == packed else [])


@pytest.mark.parametrize(
    "body",
    [
        1,
        {"a": 1},
        [1],
        [["key", [], "text"]],
        [["key", [1], b""]],
        [["key", [["vs", 1]], b""]],
        [[1, [], b""]],
        [["k"]],
    ],
)
def test_nothing_comes_out_of_another_idea_of_an_entry(body: object) -> None:
    packed = b"".join(map(msgpack.packb, body)) if isinstance(body, list) else msgpack.packb(body)
    digest = hashlib.blake2b(packed, digest_size=16).digest()
    assert warm.unpack(b"RGW\x01" + digest + packed) == []


def test_a_file_is_ours_alone_and_its_draft_is_nobodys(tmp_path: Path) -> None:
    path = warm.write(tmp_path / "warm", SOME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert warm.read(path) == SOME
    draft = path.with_suffix(".tmp")
    draft.write_bytes(b"half")
    assert warm.fresh(path.parent, 0) == [path]
    assert warm.read(path.with_name("gone.warm")) == []


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    path = warm.write(tmp_path, [Warm("key", (), bytes(warm.MAX_BYTES + 1000))])
    assert warm.read(path) == []


def test_a_draft_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        warm.write(tmp_path / "warm", SOME)
    assert list((tmp_path / "warm").iterdir()) == []


def test_a_wish_is_granted_by_one(tmp_path: Path) -> None:
    assert not warm.grant(tmp_path / "warm")
    warm.wish(tmp_path / "warm")
    (wish,) = (tmp_path / "warm").iterdir()
    assert stat.S_IMODE(wish.stat().st_mode) == 0o600
    assert warm.fresh(tmp_path / "warm", 0) == []
    assert warm.grant(tmp_path / "warm")
    assert not warm.grant(tmp_path / "warm")


def test_files_are_told_by_their_age(tmp_path: Path) -> None:
    now = time.time()
    ages = {"old.warm": 100, "older.warm": 200, "new.warm": 1, "newer.warm": 0, "old.tmp": 100, "future.warm": -1000}
    for name, age in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    assert [path.name for path in warm.fresh(tmp_path, now - 50)] == ["new.warm", "newer.warm", "future.warm"]
    warm.clean(tmp_path, now - 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.warm", "newer.warm"]
    warm.clean(tmp_path / "absent", now)
