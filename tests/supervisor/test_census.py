"""Who is there, as points: every combination, zeros included."""

from __future__ import annotations

import socket

from ragagent import names
from ragagent.supervisor.census import census, from_zero
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.process import Child
from ragagent.supervisor.release import Release

LIMITS = Limits(1, 1, 1)


def worker(release: Release, slot: int, state: State) -> Member:
    return Member("worker", slot, release, born=0.0, state=state)


def test_every_state_of_every_standing_is_there() -> None:
    fleet = Fleet(LIMITS, current=Release(2, LIMITS, workers=2), incoming=Release(3, LIMITS))
    assert fleet.current is not None
    assert fleet.incoming is not None
    fleet.members += [
        worker(fleet.current, 0, State.RUNNING),
        worker(fleet.current, 1, State.RUNNING),
        worker(fleet.incoming, 0, State.STARTING),
        worker(Release(1, LIMITS), 0, State.STOPPING),
        Member("indexer", 0, fleet.current, born=0.0, state=State.RUNNING),
    ]
    points = list(census(fleet, {}))
    up = [(tuple(attributes.values()), value) for name, attributes, value in points if name == names.WORKERS_UP.name]
    assert len(up) == 2 * 4 * 3
    assert {series: value for series, value in up if value} == {
        ("worker", "running", "current"): 2,
        ("worker", "starting", "incoming"): 1,
        ("worker", "stopping", "outgoing"): 1,
        ("indexer", "running", "current"): 1,
    }
    assert (names.WORKERS_TARGET.name, {}, 2) in points


def test_counters_are_there_before_anything_has_happened() -> None:
    points = list(from_zero().points())
    assert {value for _, _, value in points} == {0}
    assert {name: sum(other == name for other, _, _ in points) for name, _, _ in points} == {
        "ragagent.worker.exits": 2 * 8,
        "ragagent.worker.restarts": 2 * 5,
        "ragagent.reloads": 4,
        "ragagent.probe.results": 3,
    }


def test_requests_in_flight_are_summed_over_a_slot() -> None:
    release = Release(1, LIMITS)
    ours, theirs = socket.socketpair()
    with theirs:
        children = {}
        for member, requests in ((worker(release, 0, State.RUNNING), 2), (worker(release, 0, State.STOPPING), 3)):
            children[member] = Child(ours)
            children[member].stats = {"in_flight": requests}
        children[worker(release, 1, State.STARTING)] = Child(ours)
        points = list(census(Fleet(LIMITS), children))
        ours.close()
    in_flight = {a[names.WORKER_SLOT]: value for name, a, value in points if name == names.WORKER_IN_FLIGHT.name}
    assert in_flight == {0: 5, 1: 0}
