from __future__ import annotations

import logging
from typing import Any

import pytest

from ragagent import config
from ragagent.engine.answering.trial import WINDOW, Trial, at_least


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trial(clock: Clock | None = None, **settings: Any) -> Trial:
    return Trial(config.Semantic(**{"off_seconds": 60.0, **settings}), clock or Clock())


@pytest.mark.parametrize(
    ("wrong", "samples", "least"), [(0, 50, 0.0), (1, 50, 0.0045), (2, 50, 0.0132), (7, 500, 0.0077), (5, 5, 0.649)]
)
def test_the_bound_is_wilsons(wrong: int, samples: int, least: float) -> None:
    assert at_least(wrong, samples) == pytest.approx(least, abs=2e-3)


def test_a_single_disagreement_ends_nothing_and_two_of_fifty_do(caplog: pytest.LogCaptureFixture) -> None:
    found = trial()
    for at in range(49):
        found.note(agreed=at not in (3, 7))
    assert found.state == "ok", "too few samples to say"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found.note(agreed=True)
    assert found.state == "off for 1 more minutes: 2 of 50 sampled answers were wrong"
    assert len(caplog.records) == 1, "it says so once"
    assert found.false_share == pytest.approx(0.04)
    patient = trial()
    for at in range(200):
        patient.note(agreed=at != 3)
    assert patient.is_on


def test_after_a_while_it_is_on_trial_again() -> None:
    clock = Clock()
    found = trial(clock, min_samples=1)
    found.note(agreed=False)
    assert not found.is_on
    clock.now += 60
    assert (found.is_on, found.samples, found.state) == (True, 0, "ok")


def test_what_was_long_ago_no_longer_counts() -> None:
    found = trial(min_samples=10 * WINDOW)
    for at in range(WINDOW + 10):
        found.note(agreed=at >= 20)
    assert (found.samples, found.false_share) == (WINDOW, 10 / WINDOW)


def test_the_share_says_how_many_hits_are_sampled() -> None:
    assert not any(trial(shadow_share=0.0).is_sampled() for _ in range(1000))
    assert all(trial(shadow_share=1.0).is_sampled() for _ in range(1000))
    assert 100 < sum(trial(shadow_share=0.2).is_sampled() for _ in range(1000)) < 300
    off = trial(shadow_share=1.0, min_samples=1)
    off.note(agreed=False)
    assert not off.is_sampled()
