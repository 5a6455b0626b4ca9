from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragagent
from ragagent.cache.local import ITEM_BYTES, LARGEST_SHARE, LocalCache

MAX = 16_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "peek", "drop", "wait"]),
        st.sampled_from([f"k{n}" for n in range(30)]),
        st.integers(0, 700),
        st.none() | st.integers(1, 5),
    ),
    max_size=120,
)
BYTES = """
import gc, json, random, sys
sys.path.insert(0, sys.argv[1])
from ragagent.cache.local import LocalCache

MOST = 8 * 1024 * 1024
rng = random.Random(1)
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def fill(cache, low, high):
    written = number = 0
    while written < 10 * MOST:
        value = rng.randbytes(rng.randint(low, high))
        cache.put(f"rag:1:{{0123456789abcdef}}:answer:{number:064}", value, rng.uniform(3000, 4000))
        if number % 3 == 0:
            cache.peek(f"rag:1:{{0123456789abcdef}}:answer:{max(0, number - rng.randint(0, 900)):064}")
        written += len(value) + 500
        number += 1
    return cache.stats().bytes
fill(LocalCache(MOST // 8, "POLICY"), 200, 20_000)  # what the process needs anyway
found = {}
for low, high in ((200, 200), (1_800, 1_800), (20_000, 20_000), (200, 20_000)):
    before = resident()
    cache = LocalCache(MOST, "POLICY")
    found[f"{low}-{high}"] = (fill(cache, low, high), MOST, resident() - before)
    cache.purge()
print(json.dumps(found))
"""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.sampled_from(["2q", "lru"]), STEPS)
def test_it_gives_back_only_what_was_put_and_still_lives(
    policy: Literal["2q", "lru"], steps: list[tuple[str, str, int, int | None]]
) -> None:
    """Against a dict that forgets nothing before its time: whatever it has dropped is a miss, never something else."""
    clock = Clock()
    cache = LocalCache(MAX, policy, clock=clock)
    model: dict[str, tuple[bytes, float]] = {}
    full = [("put", f"k{number}", 300, None) for number in range(30)]
    for count, (action, key, size, ttl) in enumerate(full + steps):
        if action == "wait":
            clock.now += size % 3
        elif action == "drop":
            cache.drop(key)
            model.pop(key, None)
        elif action == "put":
            value = f"{key} {count} ".encode().ljust(size)
            fits = (len(key) + len(value) + ITEM_BYTES) * LARGEST_SHARE <= MAX
            assert cache.put(key, value, ttl) is fits
            model.pop(key, None)
            if fits:
                model[key] = (value, clock.now + (ttl or 1e9))
                assert cache.peek(key) == value
        else:
            known, deadline = model.get(key, (b"", 0.0))
            assert cache.peek(key) in (None, known if deadline > clock.now else None)
        stats = cache.stats()
        held = dict(cache.hottest())
        assert stats.bytes <= MAX
        assert stats.bytes >= sum(len(key) + len(value) + ITEM_BYTES for key, value in held.items())
        assert all(model[key][0] == value and model[key][1] > clock.now for key, value in held.items())


def test_the_bound_holds_after_ten_times_as_much() -> None:
    cache = LocalCache(1_000_000)
    for number in range(5000):
        cache.put(f"key:{number}", bytes(number % 4000))
        assert cache.stats().bytes <= 1_000_000
    assert cache.stats().evictions > 3000
    assert cache.peek("key:4999") is not None
    assert cache.peek("key:0") is None


@pytest.mark.parametrize("policy", ["2q", "lru"])
def test_what_is_counted_is_what_the_process_grows_by(policy: str) -> None:
    """In a process of its own, whose memory is nothing else's: ten times as much as fits, small values and large."""
    code = (BYTES.replace("POLICY", policy), str(Path(ragagent.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", *code], capture_output=True, text=True, timeout=60, check=True)
    for size, (accounted, most, grown) in json.loads(done.stdout).items():
        assert accounted <= 1.02 * most, size
        assert accounted > 0.9 * most, size
        assert grown <= 1.35 * accounted, (size, grown / accounted)


def test_what_has_expired_goes_though_nobody_asks_for_it() -> None:
    clock = Clock()
    cache = LocalCache(1_000_000, clock=clock)
    for number in range(100):
        cache.put(f"short{number}", bytes(100), 5)
        cache.put(f"long{number}", bytes(100), 1000)
        cache.peek(f"{'short' if number % 2 else 'long'}{number}")  # into main, so that there is some of each in both
    clock.now += 10
    for number in range(300):
        cache.put("other", bytes(number))
    assert sorted(key for key, _ in cache.hottest()) == sorted(["other", *(f"long{number}" for number in range(100))])
    assert (cache.stats().entries, cache.stats().expired) == (101, 100)


def test_what_was_hot_elsewhere_fills_the_room_and_pushes_out_nothing() -> None:
    cache = LocalCache(20 * (ITEM_BYTES + 60))
    assert cache.put("mine", bytes(56), 60)
    assert not cache.adopt("mine", b"another", 60)
    taken = [number for number in range(30) if cache.adopt(f"k{number:03}", bytes(56), 60)]
    assert taken == list(range(19))
    assert [key for key, _ in cache.hottest()][:3] == ["k000", "k001", "k002"]
    assert cache.stats().evictions == 0
    assert not cache.adopt("large", bytes(9_000), 60)
    cache.put("next", bytes(56), 60)
    assert cache.peek("k018") is None  # the coldest of them
    assert cache.peek("mine") == bytes(56)


def test_what_was_used_last_stays_longest() -> None:
    cache = LocalCache(20 * (ITEM_BYTES + 60), "lru")
    for number in range(20):
        cache.put(f"k{number:02}", bytes(57))
    assert cache.peek("k00") is not None
    cache.put("k20", bytes(57))
    assert cache.peek("k00") is not None
    assert cache.peek("k01") is None


def test_an_item_that_would_push_out_the_rest_is_refused_and_its_older_value_gone() -> None:
    cache = LocalCache(160_000)
    assert cache.put("key", b"old")
    assert not cache.put("key", bytes(10_000))
    assert cache.peek("key") is None
    assert cache.stats().refusals == 1
    assert cache.stats().entries == 0


def test_no_bytes_hold_nothing() -> None:
    assert not LocalCache(0).put("key", b"")


def test_purge_drops_one_prefix_only() -> None:
    cache = LocalCache(1_000_000)
    for key in ("a:1", "a:2", "b:1"):
        cache.put(key, b"x")
    assert "a:1" in cache
    assert cache.purge("a:") == 2
    assert "a:1" not in cache
    assert cache.peek("b:1") == b"x"
    assert cache.purge() == 1
    assert cache.stats().bytes == 0


@pytest.mark.anyio
async def test_it_serves_as_a_backend_of_aiocache() -> None:
    clock = Clock()
    cache = LocalCache(1_000_000, clock=clock)
    await cache.set("key", b"value", ttl=5)
    assert await cache.get("key") == b"value"
    assert await cache.multi_set([("a", b"1"), ("b", b"2")])
    assert await cache.multi_get(["a", "b", "c"]) == [b"1", b"2", None]
    assert await cache.exists("a")
    assert await cache.delete("a") == 1
    assert not await cache.exists("a")
    with pytest.raises(ValueError, match="already exists"):
        await cache.add("key", b"again")
    assert await cache.add("new", b"1", ttl=0)
    assert await cache.increment("new", 4) == 5
    assert await cache.increment("fresh") == 1
    with pytest.raises(TypeError, match="does not hold an integer"):
        await cache.increment("key")
    assert await cache.expire("new", 2)
    assert not await cache.expire("absent", 2)
    assert await cache.increment("new") == 6
    clock.now += 3
    assert await cache.get("new") is None
    assert await cache.get("key") == b"value"
    clock.now += 3
    assert await cache.get("key") is None
    assert await cache.clear()
    assert len(cache) == 0
