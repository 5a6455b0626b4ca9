"""The arithmetic, held against a bucket that remembers nothing but fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.limits.gcra import MINUTE, SECOND, Demand, Rate, Seat, is_allowed

rates = st.builds(Rate, st.integers(1, 100_000), st.integers(0, 3600 * SECOND))


class Bucket:
    """The textbook's token bucket: so many tokens, filled evenly, never above its size."""

    def __init__(self, rate: Rate) -> None:
        self.price = Fraction(rate.cost(1))
        self.size = Fraction(rate.capacity) / self.price
        self.tokens = self.size
        self.at = 0

    def take(self, now: int, units: int) -> bool:
        self.tokens = min(self.tokens + (now - self.at) / self.price, self.size)
        self.at = now
        if units > self.tokens:
            return False
        self.tokens -= units
        return True


@given(rates, st.lists(st.tuples(st.integers(0, 2 * MINUTE), st.integers(0, 5)), max_size=60))
def test_it_decides_as_a_token_bucket_does(rate: Rate, steps: list[tuple[int, int]]) -> None:
    bucket, now, empty_at = Bucket(rate), 0, 0
    for pause, units in steps:
        now += pause
        level, cost = max(empty_at - now, 0), units * rate.cost(1)
        allowed = is_allowed([Demand("k", cost, rate.capacity)], [level], [], [])
        assert allowed == bucket.take(now, units)
        if allowed:
            empty_at = now + level + cost


@given(rates, st.integers(0, 2 * MINUTE), st.integers(0, 10))
def test_who_waits_as_told_gets_through_and_not_before(rate: Rate, level: int, units: int) -> None:
    cost = units * rate.cost(1)
    wait = rate.wait(level, cost)
    if wait is None:
        assert not is_allowed([Demand("k", cost, rate.capacity)], [0], [], [])
        return
    assert is_allowed([Demand("k", cost, rate.capacity)], [max(level - wait, 0)], [], [])
    assert wait == 0 or not is_allowed([Demand("k", cost, rate.capacity)], [level - wait + 1], [], [])


@given(rates, st.integers(0, 2 * MINUTE))
def test_what_remains_can_be_taken(rate: Rate, level: int) -> None:
    remaining = rate.remaining(level)
    assert is_allowed([Demand("k", rate.cost(remaining), rate.capacity)], [level], [], []) or not remaining


@pytest.mark.parametrize("limit", [1, 7, 60, 100, 12_345, 60_000])
def test_a_minutes_burst_is_the_limit_itself(limit: int) -> None:
    rate = Rate(limit)
    assert rate.units_at_once == limit
    level = 0
    for taken in range(limit):
        assert rate.remaining(level) == limit - taken
        assert rate.wait(level, rate.cost(1)) == 0
        level += rate.cost(1)
    assert rate.remaining(level) == 0
    assert rate.wait(level, rate.cost(1)) == pytest.approx(MINUTE / limit, abs=2 * limit)


def test_one_unit_may_always_come() -> None:
    assert Rate(1, burst=0).wait(0, Rate(1).cost(1)) == 0


def test_everything_is_allowed_or_nothing() -> None:
    cheap, dear = Demand("a", 1, 10), Demand("b", 11, 10)
    seat = Seat("c", 2, "me")
    assert is_allowed([cheap], [9], [seat], [1])
    assert not is_allowed([cheap], [10], [seat], [1])
    assert not is_allowed([cheap, dear], [0, 0], [], [])
    assert not is_allowed([cheap], [0], [seat], [2])
