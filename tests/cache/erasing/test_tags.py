from __future__ import annotations

import random

import pytest

from ragagent.cache.erasing import tags as module
from ragagent.cache.erasing.tags import SPARE, Tag, Tags
from ragagent.types import Erasure


def erasure(store_id: str = "vs_a", removed: int = 0, replaced: int = 0) -> Erasure:
    return Erasure(1, "acme", store_id, removed, replaced)


@pytest.fixture
def held() -> set[str]:
    return set()


@pytest.fixture
def tags(held: set[str]) -> Tags:
    return Tags(held.__contains__)


def test_a_delete_dooms_what_was_read_before_it_and_nothing_else(tags: Tags) -> None:
    tags.file("before", [Tag("vs_a", 6, 6)])
    tags.file("since", [Tag("vs_a", 7, 6)])
    tags.file("elsewhere", [Tag("vs_b", 1, 1)])
    assert tags.erase(erasure(removed=7)) == ["before"]
    assert tags.erase(erasure(removed=7)) == []
    assert tags.is_erased([Tag("vs_b", 9, 9), Tag("vs_a", 6, 6)])
    assert not tags.is_erased([Tag("vs_a", 7, 6), Tag("vs_b", 1, 1)])
    assert len(tags) == 2


def test_a_newer_version_dooms_what_was_read_while_the_index_did_not_show_it(tags: Tags) -> None:
    tags.file("old text", [Tag("vs_a", 7, 6)])
    tags.file("new text", [Tag("vs_a", 7, 7)])
    assert tags.erase(erasure(replaced=7)) == ["old text"]
    assert tags.is_erased([Tag("vs_a", 8, 6)])
    assert not tags.is_erased([Tag("vs_a", 7, 7)])


def test_what_was_once_erased_stays_so_in_whatever_order_it_is_heard(tags: Tags) -> None:
    for heard in (erasure(removed=9), erasure(removed=4, replaced=5), erasure(removed=2)):
        tags.erase(heard)
    assert tags.is_erased([Tag("vs_a", 8, 8)])
    assert tags.is_erased([Tag("vs_a", 9, 4)])
    assert not tags.is_erased([Tag("vs_a", 9, 5)])


def test_a_value_of_several_stores_goes_with_any_of_them(tags: Tags) -> None:
    tags.file("both", [Tag("vs_a", 1, 1), Tag("vs_b", 2, 2)])
    assert tags.erase(erasure("vs_b", removed=3)) == ["both"]
    assert tags.erase(erasure("vs_a", removed=3)) == ["both"], "dropping a key twice costs nothing"


def test_what_l1_has_pushed_out_is_forgotten(tags: Tags, held: set[str]) -> None:
    chance = random.Random(1)
    for number in range(20_000):
        held.add(f"key {number}")
        tags.file(f"key {number}", [Tag(f"vs_{chance.randrange(50)}", 1, 1)])
        held.discard(f"key {number - 1000}")
        assert len(tags) <= 2 * 1001 + SPARE + 1
    doomed = [name for store in range(50) for name in tags.erase(erasure(f"vs_{store}", removed=2))]
    assert set(doomed) >= held
    assert len(tags) == 0


def test_erasures_of_very_many_stores_are_not_all_remembered(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STORES", 3)
    for store in "abcab":
        tags.erase(erasure(store, removed=5))
    tags.erase(erasure("d", removed=5))
    assert [tags.is_erased([Tag(store, 1, 1)]) for store in "abcd"] == [True, True, False, True]
