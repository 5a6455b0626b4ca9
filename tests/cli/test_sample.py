from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ragagent.cli.sample import Rates, Sample, cpu_seconds


def sample(clock: float, requests: dict[int, int], cpu: dict[int, float]) -> Sample:
    workers = [{"pid": pid, "stats": {"requests": count}} for pid, count in requests.items()]
    workers += [{"pid": None, "stats": {}}, {"pid": 77, "stats": {}}]
    return Sample({"supervisor": {"pid": 1}, "workers": workers, "indexer": None}, cpu, 0.0, clock)


def test_rates_are_differences_by_the_time_between() -> None:
    rates = Rates.between(sample(10.0, {1: 100, 2: 0}, {1: 5.0}), sample(12.0, {1: 150, 2: 3}, {1: 6.0}))
    assert rates.requests == {1: 25.0, 2: 1.5}
    assert rates.cpu_percent == {1: 50.0}
    assert rates.total == 26.5


def test_of_a_new_process_nothing_is_said() -> None:
    rates = Rates.between(sample(10.0, {1: 100}, {1: 5.0}), sample(11.0, {2: 900}, {2: 9.0}))
    assert (rates.requests, rates.cpu_percent, rates.total) == ({}, {}, None)


def test_a_count_that_has_fallen_is_another_process() -> None:
    assert Rates.between(sample(10.0, {1: 100}, {1: 5.0}), sample(11.0, {1: 7}, {1: 0.1})).requests == {}


@pytest.mark.parametrize("clock", [10.0, 9.0])
def test_without_time_between_there_is_no_rate(clock: float) -> None:
    assert Rates.between(sample(10.0, {1: 1}, {}), sample(clock, {1: 2}, {})).total is None
    assert Rates.between(None, sample(10.0, {1: 1}, {})).total is None


def test_a_sample_has_the_cpu_time_of_each_process_that_there_is() -> None:
    entry: dict[str, Any] = {"pid": None}
    taken = Sample.of({"supervisor": {"pid": os.getpid()}, "workers": [entry], "indexer": {"pid": 0}})
    assert set(taken.cpu_seconds) == {os.getpid()}
    assert taken.cpu_seconds[os.getpid()] == pytest.approx(time.process_time(), abs=0.5)


def test_cpu_time_is_read_behind_a_name_with_blanks_and_parentheses(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    behind = "S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 0 0"
    (tmp_path / "7" / "stat").write_text(f"7 (a) b 1 2 3 (c) {behind}")
    assert cpu_seconds(7, tmp_path) == 300 / os.sysconf("SC_CLK_TCK")
    assert cpu_seconds(8, tmp_path) is None
