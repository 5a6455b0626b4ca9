"""What a single member owes, and by when: a limit for each state, an answer to each probe."""

from __future__ import annotations

from ragagent.supervisor.actions import Abort, Action, GiveUpProbe, Kill, Probe, Weigh
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.wear import is_to_be_weighed

# A child that was sent SIGABRT gets this long to dump its stacks; one that drains, this long beyond its budget.
ABORT_SECONDS = 1.0
MERCY_SECONDS = 2.0


def watch(fleet: Fleet, now: float) -> list[Action]:
    """Return what is due to the members one by one: first who is late, then who is to be asked."""
    weighings = [Weigh(member) for member in fleet.members if is_to_be_weighed(member, now)]
    return overdue(fleet, now) or [*_probes(fleet, now), *weighings]


def overdue(fleet: Fleet, now: float) -> list[Action]:
    return [action for member in fleet.members if (action := _overdue_step(fleet, member, now))]


def _probes(fleet: Fleet, now: float) -> list[Action]:
    return [action for member in fleet.members if (action := _probe_step(member, now))]


def _probe_step(member: Member, now: float) -> Action | None:
    limits, probe = member.release.limits.probe, member.probe
    if member.role != "worker" or member.state is not State.RUNNING or not limits.interval_seconds:
        return None
    if probe.sent_at is None:
        return Probe(member) if now >= probe.due else None
    return GiveUpProbe(member) if now - probe.sent_at >= limits.timeout_seconds else None


def _overdue_step(fleet: Fleet, member: Member, now: float) -> Action | None:
    """Hold each state to its own limit: boot is not a hang, and a drain is neither."""
    limits, age = member.release.limits, now - member.since
    if member.state is State.STARTING and age >= limits.ready_seconds:
        return Kill(member, f"it was not ready within {limits.ready_seconds:g} s", fault=True)
    if member.state in (State.READY, State.RUNNING) and now - member.beat_at >= limits.hang_seconds:
        return Abort(member, f"its event loop was silent for {limits.hang_seconds:g} s")
    if member.state is State.READY and _serves_late(member, now):
        return Kill(member, f"it did not serve within {limits.ready_seconds:g} s of the order", fault=True)
    if member.state is not State.STOPPING or member.killed:
        return None
    if member.aborted_at is not None:
        return Kill(member, member.reason) if now - member.aborted_at >= ABORT_SECONDS else None
    # In a stop, one budget counts for all: the indexer, told last, does not begin a second one.
    begun = member.since if fleet.stop is None else min(member.since, fleet.stop.at)
    if now - begun >= limits.graceful_seconds + MERCY_SECONDS:
        return Kill(member, f"it did not leave within {limits.graceful_seconds:g} s and {MERCY_SECONDS:g} s of mercy")
    return None


def _serves_late(member: Member, now: float) -> bool:
    """Only workers can be late: the indexer waits for its predecessor's lock, and beats while it does."""
    late = member.told_at is not None and now - member.told_at >= member.release.limits.ready_seconds
    return late and member.role == "worker"
