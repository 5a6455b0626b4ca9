from __future__ import annotations

from ragagent.cache.flights.pauses import MAX_PAUSES, PAUSE_SECONDS, Pauses


def test_a_pause_ends_by_itself_and_can_be_begun_again() -> None:
    now = 100.0
    pauses = Pauses(lambda: now)
    assert not pauses.lasts("a")
    pauses.begin("a")
    now += PAUSE_SECONDS - 0.1
    assert pauses.lasts("a")
    assert not pauses.lasts("b")
    pauses.begin("a")
    now += PAUSE_SECONDS - 0.1
    assert pauses.lasts("a")
    now += 0.1
    assert not pauses.lasts("a")


def test_of_too_many_the_oldest_are_forgotten() -> None:
    pauses = Pauses(lambda: 0.0)
    for number in range(MAX_PAUSES + 1):
        pauses.begin(str(number))
    assert not pauses.lasts("0")
    assert pauses.lasts("1")
