from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.cache.local import ITEM_BYTES, ByteLRU

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


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@given(STEPS)
def test_it_is_an_lru_bounded_in_bytes(steps: list[tuple[str, str, int, int | None]]) -> None:
    """Against a model: a dict in order of use, that forgets from the front while it weighs too much."""
    clock = Clock()
    cache = ByteLRU(MAX, clock=clock)
    model: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def weight() -> int:
        return sum(len(key) + len(value) + ITEM_BYTES for key, (value, _) in model.items())

    full = [("put", f"k{number}", 300, None) for number in range(30)]
    for action, key, size, ttl in full + steps:
        if action == "wait":
            clock.now += size % 3
        elif action == "drop":
            assert cache.drop(key) == (model.pop(key, None) is not None)
        elif action == "put":
            model.pop(key, None)
            fits = (len(key) + size + ITEM_BYTES) * 16 <= MAX
            assert cache.put(key, bytes(size), ttl) is fits
            if fits:
                model[key] = (bytes(size), clock.now + (ttl or 1e9))
            while weight() > MAX:
                model.popitem(last=False)
        else:
            if key in model and model[key][1] <= clock.now:
                del model[key]
            expected = model.get(key)
            assert cache.peek(key) == (expected and expected[0])
            if expected:
                model.move_to_end(key)
        assert (cache.stats().entries, cache.stats().bytes) == (len(model), weight())


def test_the_bound_holds_after_ten_times_as_much() -> None:
    cache = ByteLRU(1_000_000)
    for number in range(5000):
        cache.put(f"key:{number}", bytes(number % 4000))
        assert cache.stats().bytes <= 1_000_000
    assert cache.stats().evictions > 3000
    assert cache.peek("key:4999") is not None
    assert cache.peek("key:0") is None


def test_what_was_used_last_stays_longest() -> None:
    cache = ByteLRU(20 * (ITEM_BYTES + 60))
    for number in range(20):
        cache.put(f"k{number:02}", bytes(57))
    assert cache.peek("k00") is not None
    cache.put("k20", bytes(57))
    assert cache.peek("k00") is not None
    assert cache.peek("k01") is None


def test_an_item_that_would_push_out_the_rest_is_refused_and_its_older_value_gone() -> None:
    cache = ByteLRU(160_000)
    assert cache.put("key", b"old")
    assert not cache.put("key", bytes(10_000))
    assert cache.peek("key") is None
    assert cache.stats().refusals == 1
    assert cache.stats().bytes == 0


def test_no_bytes_hold_nothing() -> None:
    assert not ByteLRU(0).put("key", b"")


def test_purge_drops_one_prefix_only() -> None:
    cache = ByteLRU(1_000_000)
    for key in ("a:1", "a:2", "b:1"):
        cache.put(key, b"x")
    assert cache.purge("a:") == 2
    assert cache.peek("b:1") == b"x"
    assert cache.purge() == 1
    assert cache.stats().bytes == 0


@pytest.mark.anyio
async def test_it_serves_as_a_backend_of_aiocache() -> None:
    clock = Clock()
    cache = ByteLRU(1_000_000, clock=clock)
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
