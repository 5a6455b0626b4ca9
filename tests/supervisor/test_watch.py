"""What one member owes: `test_decide` tells whole stories, this holds the order and the exceptions."""

from __future__ import annotations

from dataclasses import replace

from ragagent.config import Probe as Probing
from ragagent.config import Recycle
from ragagent.supervisor.actions import Abort, Probe, Weigh
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import Release, Role
from ragagent.supervisor.watch import watch

LIMITS = Limits(20, 10, 8, Probing(interval_seconds=1), Recycle(pss_bytes=1))


def fleet_of(role: Role, state: State, limits: Limits = LIMITS) -> tuple[Fleet, Member]:
    fleet = Fleet(LIMITS)
    fleet.current = Release(1, limits, workers=1)
    fleet.members = [Member(role, 0, fleet.current, born=0.0, state=state, beat_at=0.0, running_at=0.0)]
    return fleet, fleet.members[0]


def test_a_running_worker_is_asked_and_weighed() -> None:
    fleet, member = fleet_of("worker", State.RUNNING)
    assert watch(fleet, 5.0) == [Probe(member), Weigh(member)]


def test_who_is_late_comes_before_who_is_to_be_asked() -> None:
    fleet, _ = fleet_of("worker", State.RUNNING)
    assert [type(action) for action in watch(fleet, 10.0)] == [Abort]


def test_an_indexer_answers_nobody() -> None:
    fleet, _ = fleet_of("indexer", State.RUNNING)
    assert watch(fleet, 5.0) == []


def test_a_worker_is_asked_only_while_it_serves() -> None:
    for state in (State.STARTING, State.READY, State.STOPPING):
        fleet, _ = fleet_of("worker", state)
        assert watch(fleet, 5.0) == []


def test_an_interval_of_zero_means_no_probes() -> None:
    fleet, _ = fleet_of("worker", State.RUNNING, replace(LIMITS, probe=Probing(interval_seconds=0), recycle=Recycle()))
    assert watch(fleet, 5.0) == []
