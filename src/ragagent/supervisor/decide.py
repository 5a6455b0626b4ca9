"""What to do next: one pure function from the fleet to a list of steps.

Start, crash, reload, recycle, scale and stop are one case: there is a difference between the members there are and the
members there should be. Nothing here makes a system call or changes the fleet, so a test can live through thousands of
histories in a second.
"""

from __future__ import annotations

from ragagent.errors import EXIT_OK
from ragagent.supervisor.actions import (
    Abandon,
    Action,
    CallOff,
    Drain,
    Finish,
    GiveUp,
    Kill,
    Leave,
    Load,
    Promote,
    Rehearse,
    Serve,
    Start,
    Succeed,
    Switch,
    Unload,
)
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import INDEXER, Failure, Release, Role, Zygote
from ragagent.supervisor.watch import overdue, watch
from ragagent.supervisor.wear import worn

# Old workers drain one after the other: they still answer while they wait, and a stampede to the new ones is spread.
DRAINING_AT_ONCE = 1
REHEARSAL_SECONDS = 30.0


def decide(fleet: Fleet, now: float) -> list[Action]:
    """Return the next steps, none of which depends on another; an empty list when all is as it should be."""
    if fleet.left is not None:
        return []
    going, staying = (overdue, _stop), (watch, _hopeless, _strays, _incoming, _current, _recycle, _upgrade, _next)
    parts = going if fleet.stop is not None else staying
    return next((actions for part in parts if (actions := part(fleet, now))), [])


# -- the parts of a decision, most urgent first


def _stop(fleet: Fleet, now: float) -> list[Action]:
    """Workers first, the indexer last: what they acknowledge while they drain, it may still publish."""
    assert fleet.stop is not None
    if fleet.incoming is not None:
        return [Abandon(fleet.incoming, Failure("the supervisor is stopping", EXIT_OK))]
    if not fleet.members:
        return [Leave(fleet.stop.code)]
    if fleet.stop.quick:
        return [Kill(member, "quick stop") for member in fleet.members if not member.killed]
    workers = [member for member in fleet.members if member.role == "worker"]
    out_of_time = any(now - fleet.stop.at >= member.release.limits.graceful_seconds for member in workers)
    going = fleet.members if not workers or out_of_time else workers
    return [_dismissal(member) for member in going if member.fills]


def _hopeless(fleet: Fleet, now: float) -> list[Action]:
    """A port that takes connections and never answers is worse than none: let whoever started us start us anew."""
    if not fleet.is_hopeless or fleet.incoming is not None or fleet.reload_wanted:
        return []
    exits = {fleet.slot(key).last_exit or "?" for key in fleet.slots if key[0] == "worker"}
    return [GiveUp(f"every worker keeps dying: {'; '.join(sorted(exits))}")]


def _strays(fleet: Fleet, now: float) -> list[Action]:
    """See out what is left of other releases, whichever way it went: what has served drains, the rest is killed."""
    strays = fleet.strays
    at_once = [m for m in strays if m.fills and (m.told_at is None or m.role == "indexer")]
    if at_once:
        return [_dismissal(member) for member in at_once]
    workers = [member for member in strays if member.role == "worker"]
    draining = sum(1 for m in workers if m.state is State.STOPPING and m.told_at is not None and not m.finished)
    waiting = [member for member in workers if member.fills]
    return [Drain(member) for member in waiting[: max(DRAINING_AT_ONCE - draining, 0)]]


def _incoming(fleet: Fleet, now: float) -> list[Action]:
    release = fleet.incoming
    if release is None:
        return []
    if release.failure is not None:
        return [Abandon(release, release.failure)]
    if release.zygote is Zygote.LOADING:
        if now - release.zygote_since < release.limits.ready_seconds:
            return []
        return [Abandon(release, Failure(f"it did not load within {release.limits.ready_seconds:g} s"))]
    return _switch(fleet, release) if release.switching else _build(fleet, release, now)


def _build(fleet: Fleet, release: Release, now: float) -> list[Action]:
    """Start one member at a time: memory for one more is all that a release that cannot start ever takes."""
    members = fleet.of(release)
    if any(member.state is State.STARTING for member in members):
        return []
    filled = {member.key for member in members if member.fills}
    missing = [key for key in release.slots() if key not in filled]
    if missing:
        role, slot = missing[0]
        return [Start(_newborn(release, role, slot, now))]
    return [Switch(release)]


def _switch(fleet: Fleet, release: Release) -> list[Action]:
    """Tell all to serve; when every worker does, the release is the current one.

    The old indexer goes at the same moment. The new one waits for its lock by itself, so there is never a time
    without one that will write, and never one with two that do.
    """
    old_indexers = [member for member in fleet.of(fleet.current, "indexer") if member.fills] if fleet.current else []
    untold = [member for member in fleet.of(release) if member.state is State.READY and member.told_at is None]
    if untold or old_indexers:
        return [*map(_dismissal, old_indexers), *map(Serve, untold)]
    if all(member.state is State.RUNNING for member in fleet.of(release, "worker")):
        return [Promote(release, fleet.current)]
    return []


def _current(fleet: Fleet, now: float) -> list[Action]:
    """Keep the current release whole."""
    release = fleet.current
    if release is None:
        return []
    if actions := _zygote(release, now):
        return actions
    members = fleet.of(release)
    untold = [m for m in members if m.state is State.READY and m.told_at is None]
    surplus = [m for m in members if m.fills and m.role == "worker" and m.slot >= release.workers]
    if untold or surplus:
        return [*(Serve(m) for m in untold if m not in surplus), *map(_dismissal, surplus)]
    if release.zygote is not Zygote.LOADED:
        return []
    filled = {member.key for member in members if member.fills}
    if fleet.incoming is not None and fleet.incoming.switching:
        filled.add(INDEXER)  # Its successor has been told to serve.
    vacant = [key for key in release.slots() if key not in filled and now >= fleet.slot(key).retry_at]
    return [Start(_newborn(release, role, slot, now)) for role, slot in vacant]


def _zygote(release: Release, now: float) -> list[Action]:
    if release.zygote is Zygote.LOST and now >= release.zygote_retry_at:
        return [Load(release)]
    if release.zygote is Zygote.LOADING and now - release.zygote_since >= release.limits.ready_seconds:
        return [Unload(release, f"it did not load within {release.limits.ready_seconds:g} s")]
    return []


def _recycle(fleet: Fleet, now: float) -> list[Action]:
    """Replace worn workers, one at a time: its successor serves before one is told to finish."""
    release = fleet.current
    if release is None or fleet.incoming is not None:  # A reload replaces them all.
        return []
    workers = [member for member in fleet.of(release, "worker") if member.fills]
    for at, member in enumerate(workers):
        successor = next((younger for younger in workers[at + 1 :] if younger.key == member.key), None)
        if successor is not None:
            return [Drain(member, member.wear.why)] if successor.state is State.RUNNING else []
    if release.zygote is not Zygote.LOADED or any(member.state is not State.RUNNING for member in workers):
        return []
    due = [(member, why) for member in workers if (why := _is_due(fleet, member, now))]
    return [Start(_newborn(release, "worker", member.slot, now), member, why) for member, why in due[:1]]


def _is_due(fleet: Fleet, member: Member, now: float) -> str:
    """Return why this worker is to be replaced now; empty: it is not, or not yet."""
    spaced = now - fleet.recycled_at >= member.release.limits.recycle.spacing_seconds
    if now < fleet.slot(member.key).retry_at or not (spaced or member.wear.asked):  # The last successor did not live.
        return ""
    return worn(member, now) or _sick(fleet, member)


def _sick(fleet: Fleet, member: Member) -> str:
    """Return why a worker is worse than its peers; empty: it is not. What all of them fail at is not its fault."""
    probe, limit = member.probe, member.release.limits.probe.failures
    if probe.failures < limit or not any(peer.is_healthy for peer in fleet.of(member.release, "worker")):
        return ""
    how = "did not answer" if probe.outcome == "no_answer" else "was not ready at"
    return f"it {how} {probe.failures} probes in a row"


def _upgrade(fleet: Fleet, now: float) -> list[Action]:
    """Replace the supervisor's own code, between two reloads and once it has been rehearsed."""
    upgrade = fleet.upgrade
    if not upgrade.wanted or fleet.incoming is not None:
        return []
    if upgrade.failure is not None:
        return [CallOff(upgrade.failure)]
    if upgrade.rehearsed_since is None:
        return [Rehearse()]
    if upgrade.can_succeed:
        return [Succeed()]
    late = now - upgrade.rehearsed_since >= REHEARSAL_SECONDS
    return [CallOff(f"its rehearsal did not end within {REHEARSAL_SECONDS:g} s")] if late else []


def _next(fleet: Fleet, now: float) -> list[Action]:
    """End one reload before the next begins: at most one release drains, whatever is asked."""
    if fleet.incoming is not None or fleet.strays:
        return []
    if fleet.current is not None and not fleet.current.finished:
        return [Finish(fleet.current)]
    if not fleet.reload_wanted or fleet.upgrade.wanted:  # The new code will load the new release.
        return []
    current = fleet.current
    limits, previous = (current.limits, current.number) if current is not None else (fleet.limits, None)
    return [Load(Release(fleet.last_number + 1, limits, previous, marks={"requested": now}))]


def _newborn(release: Release, role: Role, slot: int, now: float) -> Member:
    return Member(role, slot, release, born=now, since=now, beat_at=now)


def _dismissal(member: Member) -> Action:
    """A member that was never told to serve holds nothing worth waiting for."""
    return Kill(member, "it is not needed any more") if member.told_at is None else Drain(member)
