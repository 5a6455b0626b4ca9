"""How waits grow, for one slot and over all."""

from __future__ import annotations

import random

from ragagent.supervisor.backoff import FIRST_SECONDS, MAX_SECONDS, QUIET_SECONDS, YoungDeaths, delay


def test_the_first_death_costs_nothing_and_later_ones_twice_as_much_each() -> None:
    dice = random.Random(0)
    assert delay(0, dice) == delay(1, dice) == 0
    for failures in range(2, 40):
        least = min(FIRST_SECONDS * 2 ** (failures - 2), MAX_SECONDS)
        assert least <= delay(failures, dice) <= 1.25 * least


def test_jitter_parts_those_who_died_together() -> None:
    dice = random.Random(0)
    assert len({delay(3, dice) for _ in range(20)}) == 20


def test_all_slots_may_die_once_for_free() -> None:
    deaths = YoungDeaths()
    for _ in range(4):
        deaths.add(100.0)
    assert deaths.beyond(slots=4) == 0
    deaths.add(101.0)
    assert deaths.beyond(slots=4) == 1


def test_a_quiet_minute_begins_a_new_count() -> None:
    deaths = YoungDeaths()
    for _ in range(9):
        deaths.add(100.0)
    deaths.add(100.0 + QUIET_SECONDS)
    assert deaths.count == 1
