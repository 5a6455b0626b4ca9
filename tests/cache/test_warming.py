"""How one process begins with what another leaves: real files, and two local tiers in this process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragagent.cache import envelope, warm
from ragagent.cache import warming as module
from ragagent.cache.erasing.tags import Tag, Tags
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.warm import Warm
from ragagent.cache.warming import LIFE_SECONDS, Warming
from ragagent.types import Erasure

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def warming(local: LocalCache, directory: Path, epoch: Callable[[], int] = lambda: 0) -> Warming:
    return Warming(local, directory, epoch, Tags(local.__contains__))


def plain(key: str, value: object, ttl: float = 60, now: float | None = None) -> bytes:
    encoded = envelope.encode(key, value, Life(ttl), time.time() if now is None else now)
    assert encoded is not None
    return encoded


def filled(count: int, max_bytes: int = MIB) -> LocalCache:
    local = LocalCache(max_bytes)
    for number in range(count):
        local.put(f"k{number}", plain(f"k{number}", number), 60)
    return local


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def test_a_new_process_has_what_the_old_one_had(tmp_path: Path) -> None:
    old, new = filled(100), LocalCache(MIB)
    arriving = warming(new, tmp_path / "warm")
    await warming(old, tmp_path / "warm").leave()
    await arriving.look()
    assert dict(new.hottest()) == dict(old.hottest())
    assert [key for key, _ in new.hottest()] == [key for key, _ in old.hottest()]
    new.purge()
    await arriving.look()
    assert len(new) == 0  # A file is taken once.


async def test_the_task_takes_what_comes_later_and_from_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    new = LocalCache(MIB)
    arriving = warming(new, tmp_path / "warm")
    arriving.start()
    await asyncio.sleep(0.03)
    await warming(filled(10), tmp_path / "warm").leave()
    other = LocalCache(MIB)
    other.put("other", plain("other", "value"), 60)
    await warming(other, tmp_path / "warm").leave()
    await until(lambda: len(new) == 11)
    await arriving.aclose()


async def test_what_is_here_already_stays_and_nothing_goes_for_it(tmp_path: Path) -> None:
    new = LocalCache(20_000)
    mine = plain("k1", "mine")
    arriving = warming(new, tmp_path)
    new.put("k1", mine, 60)
    await warming(filled(100), tmp_path).leave()
    await arriving.look()
    assert new.peek("k1") == mine
    assert 20 < len(new) < 60
    assert new.stats().evictions == 0


async def test_only_values_come_in(tmp_path: Path) -> None:
    now = time.time()
    entries = [
        Warm("good", (), plain("good", 1)),
        Warm("expired", (), plain("expired", 1, ttl=5, now=now - 10)),
        Warm("moved", (), plain("good", 1)),
        Warm("corrupt", (), plain("corrupt", 1)[:-1] + b"\xff"),
        Warm("foreign", (), b"anything"),
    ]
    new = LocalCache(MIB)
    arriving = warming(new, tmp_path)
    warm.write(tmp_path, entries)
    (tmp_path / "garbage.warm").write_bytes(b"RGW\x01 garbage")
    await arriving.look()
    assert [key for key, _ in new.hottest()] == ["good"]


async def test_what_was_erased_stays_erased_and_the_rest_can_still_be(tmp_path: Path) -> None:
    one, two = Tag("vs_1", 5, 4), Tag("vs_2", 9, 9)
    old, new = filled(4), LocalCache(MIB)
    left, found = Tags(old.__contains__), Tags(new.__contains__)
    for key, tags in {"k0": (one,), "k1": (one, two), "k2": (two,)}.items():
        left.file(key, tags)
    arriving = Warming(new, tmp_path, lambda: 0, found)
    await Warming(old, tmp_path, lambda: 0, left).leave()
    found.erase(Erasure(1, "acme", "vs_1", removed=6, replaced=0))
    await arriving.look()
    assert sorted(key for key, _ in new.hottest()) == ["k2", "k3"]
    assert found.erase(Erasure(2, "acme", "vs_2", removed=10, replaced=0)) == ["k2"]


async def test_a_purge_ends_the_arriving(tmp_path: Path) -> None:
    epochs = [0]
    new = LocalCache(MIB)
    arriving = warming(new, tmp_path, lambda: epochs[-1])
    await warming(filled(100), tmp_path).leave()
    look = asyncio.create_task(arriving.look())
    await until(lambda: len(new) > 0)
    epochs.append(1)
    new.purge()
    await look
    await arriving.look()
    assert len(new) == 0


async def test_what_was_left_before_the_process_began_is_not_for_it(tmp_path: Path) -> None:
    path = warm.write(tmp_path, [Warm("key", (), plain("key", 1))])
    os.utime(path, (time.time() - 1, time.time() - 1))
    new = LocalCache(MIB)
    await warming(new, tmp_path).look()
    assert len(new) == 0
    assert path.exists()
    os.utime(path, (time.time() - LIFE_SECONDS - 1,) * 2)
    await warming(new, tmp_path).look()
    assert not path.exists()


async def test_after_the_watch_it_goes_on_cleaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0)
    monkeypatch.setattr(module, "STAY_SECONDS", 0.01)
    new = LocalCache(MIB)
    arriving = warming(new, tmp_path)
    arriving.start()
    await asyncio.sleep(0.03)
    path = warm.write(tmp_path, [Warm("key", (), plain("key", 1))])
    os.utime(path, (time.time() - LIFE_SECONDS - 1,) * 2)
    await until(lambda: not path.exists())
    await arriving.aclose()
    assert len(new) == 0


async def test_who_finds_no_file_wishes_for_one_and_a_worker_that_stays_grants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STAY_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0)
    staying = warming(filled(10), tmp_path / "warm")
    staying.start()
    await asyncio.sleep(0.03)
    monkeypatch.setattr(module, "WATCH_SECONDS", 60)
    monkeypatch.setattr(module, "WISH_SECONDS", 0)
    crowd = [LocalCache(MIB), LocalCache(MIB)]
    arriving = [warming(new, tmp_path / "warm") for new in crowd]
    for one in arriving:
        one.start()
    await until(lambda: all(len(new) == 10 for new in crowd))
    await until(lambda: not any(path.suffix == warm.WISH for path in (tmp_path / "warm").iterdir()))
    for one in (staying, *arriving):
        await one.aclose()
    assert len(warm.fresh(tmp_path / "warm", 0)) <= 2  # A wish is granted once, though two may have wished.


async def test_the_hottest_are_left_and_no_more_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "MAX_BYTES", 5_000)
    old = filled(100)
    for number in range(0, 100, 10):
        old.peek(f"k{number}")
    await warming(old, tmp_path).leave()
    (path,) = warm.fresh(tmp_path, 0)
    left = [entry.key for entry in warm.read(path)]
    assert left[:10] == [f"k{number}" for number in range(90, -10, -10)]
    assert 20 < len(left) < 60
    assert path.stat().st_size <= 5_100


async def test_leaving_never_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    await warming(filled(1), tmp_path / "file" / "warm").leave()
    assert "begins with an empty cache" in caplog.text
    await warming(LocalCache(MIB), tmp_path / "warm").leave()
    assert not (tmp_path / "warm").exists()
