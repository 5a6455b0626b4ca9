"""Who is there at this moment, as points of gauges; and every counter at 0, before anything has happened.

A series that is missing says nothing. One at 0 can raise an alarm, and its first increase can be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from ragagent import names
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, Outcome, State
from ragagent.supervisor.process import Child
from ragagent.supervisor.release import Release, Role
from ragagent.supervisor.tally import Point, Tally
from ragagent.supervisor.trace import LOSSES, ORDERED, OUTCOMES

_ROLES: tuple[Role, ...] = ("worker", "indexer")
_STATES = (State.STARTING, State.READY, State.RUNNING, State.STOPPING)
_STANDINGS = ("current", "incoming", "outgoing")


def census(fleet: Fleet, children: Mapping[Member, Child]) -> Iterator[Point]:
    """Yield a point for every combination, from the fleet and what its children said last."""
    found = Counter((m.role, m.state, _standing(fleet, m.release)) for m in fleet.members)
    for role in _ROLES:
        for state in _STATES:
            for standing in _STANDINGS:
                attributes = {
                    names.PROCESS_ROLE: role,
                    names.WORKER_STATE: state.value,
                    names.RELEASE_STANDING: standing,
                }
                yield names.WORKERS_UP.name, attributes, found[role, state, standing]
    yield names.WORKERS_TARGET.name, {}, fleet.current.workers if fleet.current is not None else 0
    for slot, requests in sorted(_in_flight(children).items()):
        yield names.WORKER_IN_FLIGHT.name, {names.WORKER_SLOT: slot}, requests


def from_zero() -> Tally:
    """Return a tally that has every series whose values are known beforehand."""
    tally = Tally()
    for role in _ROLES:
        for reason in (*ORDERED, *LOSSES):
            tally.count(names.WORKER_EXITS, {names.PROCESS_ROLE: role, names.EXIT_REASON: reason}, 0)
        for reason in LOSSES:
            tally.count(names.WORKER_RESTARTS, {names.PROCESS_ROLE: role, names.EXIT_REASON: reason}, 0)
    for outcome in OUTCOMES:
        tally.count(names.RELOADS, {names.RELOAD_OUTCOME: outcome}, 0)
    for outcome in get_args(Outcome):
        tally.count(names.PROBE_RESULTS, {names.PROBE_OUTCOME: outcome}, 0)
    return tally


def _standing(fleet: Fleet, release: Release) -> str:
    if release is fleet.current:
        return "current"
    return "incoming" if release is fleet.incoming else "outgoing"


def _in_flight(children: Mapping[Member, Child]) -> Counter[int]:
    """Sum over the worker in a slot and those that drain there."""
    requests: Counter[int] = Counter()
    for member, child in children.items():
        if member.role == "worker":
            requests[member.slot] += int(child.stats.get("in_flight", 0))
    return requests
