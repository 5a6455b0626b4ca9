from __future__ import annotations

import pytest

from ragagent.index.tiers import Tier, first_merged, needs_merge


def sizes(*rows: int) -> list[Tier]:
    return [Tier(count, 0) for count in rows]


@pytest.mark.parametrize(
    ("generations", "delta", "kept"),
    [
        ([0], 10, 0),  # a new store's empty one goes at once
        ([1000], 999, 1),
        ([1000], 1000, 0),
        ([4000, 2000, 1000], 1000, 0),  # each step makes the next one due
        ([4001, 2000, 1000], 1000, 1),
        ([100, 4000], 10, 2),  # only ever a tail
    ],
)
def test_a_merge_takes_what_is_no_larger_than_itself(generations: list[int], delta: int, kept: int) -> None:
    assert first_merged(sizes(*generations), Tier(delta, 0), flat_rows=50) == kept


def test_what_stays_without_a_graph_is_merged_at_any_size() -> None:
    assert first_merged(sizes(5000, 900), Tier(10, 0), flat_rows=1000) == 1
    assert first_merged(sizes(5000, 990), Tier(10, 0), flat_rows=1000) == 2


def test_the_living_are_counted_and_not_the_rows() -> None:
    assert first_merged([Tier(1000, 900)], Tier(200, 100), flat_rows=1) == 0
    assert first_merged([Tier(1000, 0)], Tier(2000, 1900), flat_rows=1) == 1


def test_a_generation_with_many_dead_is_merged_and_so_is_all_behind_it() -> None:
    generations = [Tier(100_000, 0), Tier(50_000, 10_001), Tier(40_000, 0)]
    assert first_merged(generations, Tier(1, 0), flat_rows=1) == 1
    assert needs_merge(generations, Tier(1, 0), max_delta_rows=10)
    assert not needs_merge([Tier(100_000, 0), Tier(50_000, 10_000)], Tier(10, 10), max_delta_rows=10)


def test_a_merge_leaves_no_need_for_another() -> None:
    """Else the indexer would build for ever."""
    generations = [Tier(100_000, 20_001), Tier(9000, 9000), Tier(3000, 1001)]
    first = first_merged(generations, Tier(5000, 0), flat_rows=1000)
    assert not needs_merge([*generations[:first], Tier(5000, 0)], Tier(0, 0), max_delta_rows=4096)


def test_a_store_that_grows_delta_by_delta_has_few_generations_and_builds_each_row_seldom() -> None:
    generations: list[Tier] = []
    built = most = 0
    for _ in range(250):
        first = first_merged(generations, Tier(4096, 0), flat_rows=10_000)
        merged = 4096 + sum(tier.rows for tier in generations[first:])
        generations[first:] = [Tier(merged, 0)]
        built, most = built + merged, max(most, len(generations))
    assert sum(tier.rows for tier in generations) == 250 * 4096
    assert most <= 7
    assert built <= 8 * 250 * 4096
