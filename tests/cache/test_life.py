from __future__ import annotations

import random

import pytest

from ragagent import config
from ragagent.cache.life import JITTER, MAX_SECONDS, Life, is_early


def test_ten_thousand_values_of_one_minute_expire_over_five_seconds_and_more() -> None:
    ends = [Life(60).drawn().fresh for _ in range(10_000)]
    assert 60 * (1 - JITTER) <= min(ends) < max(ends) <= 60 * (1 + JITTER)
    assert max(ends) - min(ends) >= 5
    seconds = [sum(second <= end < second + 1 for end in ends) for second in range(54, 66)]
    assert max(seconds) < 2 * 10_000 / 12, "in no one second many more than in the others"


def test_a_life_is_bounded() -> None:
    assert Life(float("inf"), float("inf"), float("inf")).drawn().fresh <= MAX_SECONDS * (1 + JITTER)
    assert Life(60, stale=10, on_error=600).drawn().stale == 10


def test_that_there_is_nothing_lives_shortly_and_never_stands_in() -> None:
    drawn = Life(60, stale=10, on_error=600, negative=5).drawn(is_nothing=True)
    assert drawn.fresh <= 5 * (1 + JITTER)
    assert (drawn.stale, drawn.on_error) == (0, 0)
    assert Life(1, negative=5).drawn(is_nothing=True).fresh <= 1 + JITTER
    assert Life(60).drawn(is_nothing=True).fresh == 0


def test_it_is_as_configured() -> None:
    settings = config.Cache(stale_seconds=1, stale_on_error_seconds=2, negative_seconds=3)
    assert Life.of(settings, 60) == Life(60, 1, 2, 3)


@pytest.mark.parametrize(("left", "share"), [(0.05, 0.95), (1.0, 0.37), (5.0, 0.007), (26.0, 0.0), (-1.0, 1.0)])
def test_the_nearer_the_end_the_likelier_it_is_refreshed(left: float, share: float) -> None:
    """A computation of one second, `left` seconds before the end: exp(-left) of those who ask."""
    random.seed(7)
    drawn = sum(is_early(100.0 + left, 1.0, 100.0) for _ in range(5000)) / 5000
    assert drawn == pytest.approx(share, abs=0.03)
