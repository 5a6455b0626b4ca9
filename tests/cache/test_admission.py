from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ragagent.cache.admission import GHOST_BYTES, GHOST_SHARE, MIN_GHOSTS, PROBATION_SHARE, Policy, Queues
from ragagent.cache.chain import Item

MAX = 20_000
KEYS = [f"k{number}" for number in range(60)]
FULL: list[tuple[str, str, int]] = [("add", key, 900) for key in KEYS]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "find", "find", "look", "remove", "retire", "adopt"]),
        st.sampled_from(KEYS),
        st.integers(200, 1200),
    ),
    max_size=150,
)


class Model:
    """The same rules on plain lists, oldest first, searched from end to end."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.main: list[Item] = []
        self.probation: list[Item] = []
        self.ghosts: list[str] = []

    def bytes(self) -> int:
        return sum(item.weight for item in self.main + self.probation) + len(self.ghosts) * GHOST_BYTES

    def item(self, key: str) -> Item | None:
        return next((item for item in self.main + self.probation if item.key == key), None)

    def find(self, key: str) -> Item | None:
        item = self.item(key)
        if item is not None:
            self.remove(key)
            self.main.append(item)
        return item

    def remove(self, key: str) -> None:
        self.main = [item for item in self.main if item.key != key]
        self.probation = [item for item in self.probation if item.key != key]

    def retire(self, key: str) -> None:
        if self.item(key) is None:
            return
        self.remove(key)
        if self.policy == "lru":
            return
        self.ghosts = [ghost for ghost in self.ghosts if ghost != key] + [key]
        most = max(MIN_GHOSTS, (len(self.main) + len(self.probation)) * GHOST_SHARE)
        while len(self.ghosts) > most:
            self.ghosts.pop(0)

    def add(self, item: Item) -> None:
        if self.policy == "lru" or item.key in self.ghosts:
            self.main.append(item)
        else:
            self.probation.append(item)
        self.ghosts = [ghost for ghost in self.ghosts if ghost != item.key]
        while self.bytes() > MAX and self.main + self.probation:
            waiting = sum(item.weight for item in self.probation)
            if waiting > MAX * PROBATION_SHARE or not self.main:
                self.retire(self.probation[0].key)
            else:
                self.remove(self.main[0].key)

    def adopt(self, item: Item) -> bool:
        if self.bytes() + item.weight > MAX:
            return False
        self.main.insert(0, item)
        return True


@given(st.sampled_from(["2q", "lru"]), st.booleans(), STEPS)
def test_it_does_what_plain_lists_do(policy: Policy, full: bool, steps: list[tuple[str, str, int]]) -> None:
    queues, model = Queues(MAX, policy), Model(policy)
    for step, key, weight in (FULL if full else []) + steps:
        item = Item(key, key.encode(), 0.0, weight)
        if step == "add":
            queues.retire(key)
            model.retire(key)
            before = len(queues)
            gone = queues.add(item)
            model.add(Item(key, key.encode(), 0.0, weight))
            assert len(queues) == before + 1 - gone
        elif step == "adopt" and queues.look(key) is None:
            assert queues.adopt(item) is model.adopt(Item(key, key.encode(), 0.0, weight))
        elif step == "find":
            found, expected = queues.find(key), model.find(key)
            assert (found and found.weight) == (expected and expected.weight)
            assert found is None or found.value == key.encode()
        elif step == "look":
            assert (queues.look(key) is None) is (model.item(key) is None)
        elif step == "remove":
            queues.remove(key)
            model.remove(key)
        elif step == "retire":
            queues.retire(key)
            model.retire(key)
        hottest = [item.key for item in [*reversed(model.main), *reversed(model.probation)]]
        assert [item.key for item in queues.hottest()] == hottest
        assert sorted(queues) == sorted(hottest)
        assert (len(queues), queues.bytes, queues.ghosts) == (len(hottest), model.bytes(), len(model.ghosts))
        assert queues.bytes <= MAX or step != "add"


def test_what_is_asked_for_often_survives_what_is_asked_for_once() -> None:
    cases: list[tuple[Policy, bool]] = [("2q", True), ("lru", False)]
    for policy, survives in cases:
        queues = Queues(1_000_000, policy)
        hot = [f"hot{number}" for number in range(100)]
        for key in hot:
            queues.add(Item(key, b"", 0.0, 1000))
            queues.find(key)
        for number in range(10_000):
            queues.add(Item(f"scan{number}", b"", 0.0, 1000))
        assert all((queues.look(key) is not None) is survives for key in hot)


def test_what_comes_back_soon_after_it_went_is_believed() -> None:
    queues = Queues(100_000)
    for number in range(120):
        queues.add(Item(f"k{number}", b"", 0.0, 1000))
    assert queues.look("k0") is None
    queues.add(Item("k0", b"", 0.0, 1000))
    for number in range(200, 320):
        queues.add(Item(f"k{number}", b"", 0.0, 1000))
    assert queues.look("k0") is not None
    assert queues.look("k119") is None


def test_it_finds_more_of_what_people_ask_than_lru_does() -> None:
    rng = random.Random(7)
    ranks = range(1, 5001)
    asked = [f"q{number}" for number in rng.choices(ranks, [1 / rank for rank in ranks], k=40_000)]
    once = iter(range(10**9))
    asked = [f"once{next(once)}" if rng.random() < 0.4 else key for key in asked]
    hits: dict[Policy, int] = {"2q": 0, "lru": 0}
    for policy in hits:
        queues = Queues(300_000, policy)
        for key in asked:
            if queues.find(key) is not None:
                hits[policy] += 1
            else:
                queues.add(Item(key, b"", 0.0, 1000))
    assert hits["2q"] > 1.1 * hits["lru"]


def test_ghosts_weigh_too() -> None:
    queues = Queues(100_000)
    for number in range(1000):
        queues.add(Item(f"k{number}", b"", 0.0, 500))
        assert queues.bytes <= 100_000
    assert 0 < queues.ghosts <= len(queues) * GHOST_SHARE
    assert queues.bytes == sum(item.weight for item in queues.hottest()) + queues.ghosts * GHOST_BYTES
