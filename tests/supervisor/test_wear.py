"""When a worker is worn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragagent.config import MIB, Recycle
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import Release
from ragagent.supervisor.wear import WEIGH_SECONDS, WEIGHINGS, is_to_be_weighed, weigh, worn


def worker(**limits: Any) -> Member:
    release = Release(1, replace(Limits(20, 10, 8), recycle=Recycle(**limits)))
    return Member("worker", 0, release, born=0.0, state=State.RUNNING, running_at=10.0)


def test_without_limits_nothing_wears_a_worker() -> None:
    member = worker()
    member.wear.requests, member.wear.pss_bytes = 10**9, 10**12
    assert worn(member, 1e9) == ""
    assert not is_to_be_weighed(member, 1e9)


def test_a_limit_is_lower_by_the_workers_own_share() -> None:
    member = worker(requests=100, lifetime_seconds=50)
    member.wear.share = 0.8
    member.wear.requests = 79
    assert worn(member, 49.9) == ""
    assert worn(member, 50.0) == "it has served for 40 s"
    member.wear.requests = 80
    assert worn(member, 10.0) == "it has answered 80 requests"


def test_memory_counts_only_when_it_stays_above_the_limit() -> None:
    member = worker(pss_bytes=100 * MIB)
    for size in (200, 200, 50, 200, 200):
        weigh(member, size * MIB, 0.0)
        assert worn(member, 20.0) == ""
    weigh(member, None, 0.0)  # A process that cannot be weighed says nothing.
    assert worn(member, 20.0) == ""
    weigh(member, 200 * MIB, 0.0)
    assert worn(member, 20.0) == "it takes 200 MiB of memory"
    assert WEIGHINGS == 3


def test_weighings_are_spaced() -> None:
    member = worker(pss_bytes=1)
    assert is_to_be_weighed(member, 10.0)
    weigh(member, 1, 10.0)
    assert not is_to_be_weighed(member, 10.0 + WEIGH_SECONDS - 0.1)
    assert is_to_be_weighed(member, 10.0 + WEIGH_SECONDS)


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.STOPPING])
def test_only_a_worker_that_runs_can_be_worn(state: State) -> None:
    member = worker(requests=1)
    member.wear.requests, member.wear.asked, member.state = 5, True, state
    assert worn(member, 20.0) == ""


def test_whoever_asks_is_heard_before_any_limit() -> None:
    member = worker(requests=1)
    member.wear.requests, member.wear.asked = 5, True
    assert worn(member, 20.0) == "its replacement was asked for"
