from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from ragagent.cache.chain import Chain, Item

STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "prepend", "renew", "remove", "walk"]), st.integers(0, 9)), max_size=60
)


@given(STEPS)
def test_it_keeps_the_order_of_a_list(steps: list[tuple[str, int]]) -> None:
    chain = Chain()
    items = [Item(f"k{number}", b"", 0.0, number) for number in range(10)]
    model: list[Item] = []  # oldest first
    for step, number in steps:
        item = items[number]
        if step == "walk":
            assert chain.walk() in (*model, None)
        elif step in ("append", "prepend") and item not in model:
            getattr(chain, step)(item)
            model.insert(len(model) if step == "append" else 0, item)
        elif step == "renew" and item in model:
            chain.renew(item)
            model.remove(item)
            model.append(item)
        elif step == "remove" and item in model:
            chain.remove(item)
            model.remove(item)
        assert list(reversed(chain)) == model[::-1]
        assert chain.oldest is (model[0] if model else None)
        assert (len(chain), chain.bytes) == (len(model), sum(item.weight for item in model))
        assert all((item.chain is chain) is (item in model) for item in items)


@given(st.integers(1, 20), st.integers(0, 20), st.sets(st.integers(0, 19)))
def test_a_round_comes_to_every_item_whatever_goes_meanwhile(count: int, first: int, gone: set[int]) -> None:
    chain = Chain()
    items = [Item(f"k{number}", b"", 0.0, 1) for number in range(count)]
    for item in items:
        chain.append(item)
    assert chain.walk() is None  # A round begins.
    seen = [chain.walk() for _ in range(min(first, count))]
    for number in gone & set(range(count)):
        chain.remove(items[number])
    while (item := chain.walk()) is not None:  # type: ignore[assignment]  # mypy has the name for an Item
        seen.append(item)
    assert seen == [item for number, item in enumerate(items) if number < first or number not in gone]


def test_what_is_taken_out_needs_no_collector() -> None:
    chain = Chain()
    gc.collect()
    gc.disable()
    try:
        for number in range(2000):
            chain.append(Item(f"k{number}", b"", 0.0, 1))
            if len(chain) > 10 and chain.oldest is not None:
                chain.remove(chain.oldest)
        assert gc.collect() < 1000
    finally:
        gc.enable()
