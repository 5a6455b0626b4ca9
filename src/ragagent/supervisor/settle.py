"""From decision to fact: each step is noted in the fleet, then handed to the caller to carry out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ragagent.errors import EXIT_ALL_FAILING
from ragagent.supervisor.actions import (
    Abandon,
    Abort,
    Action,
    CallOff,
    Drain,
    Finish,
    GiveUp,
    GiveUpProbe,
    Kill,
    Leave,
    Load,
    Probe,
    Promote,
    Rehearse,
    Serve,
    Start,
    Succeed,
    Switch,
    Unload,
    Weigh,
)
from ragagent.supervisor.decide import decide
from ragagent.supervisor.fleet import Fleet, Stop, Upgrade
from ragagent.supervisor.member import State
from ragagent.supervisor.release import Failure, Release, Zygote
from ragagent.supervisor.wear import WEIGH_SECONDS


def settle(fleet: Fleet, now: float) -> Iterator[Action]:
    """Yield the steps to carry out, each already noted in the fleet, until `decide` has none left."""
    while actions := decide(fleet, now):
        for action in actions:
            _note(fleet, action, now)
            yield action


def _note(fleet: Fleet, action: Action, now: float) -> None:
    note = _NOTES.get(type(action))
    if note is not None:
        note(fleet, action, now)


def _note_load(fleet: Fleet, action: Load, now: float) -> None:
    release = action.release
    release.zygote, release.zygote_since = Zygote.LOADING, now
    if release is not fleet.current:
        fleet.incoming, fleet.last_number, fleet.reload_wanted = release, release.number, False


def _note_unload(fleet: Fleet, action: Unload, now: float) -> None:
    fleet.zygote_lost(action.release, Failure(action.reason), now)


def _note_start(fleet: Fleet, action: Start, now: float) -> None:
    member = action.member
    if action.instead_of is not None:
        fleet.recycled_at, action.instead_of.wear.why = now, action.why
    member.wear.share = 1 - member.release.limits.recycle.jitter * fleet.jitter.random()
    fleet.members.append(member)


def _note_serve(fleet: Fleet, action: Serve, now: float) -> None:
    action.member.told_at = action.member.beat_at = now


def _note_drain(fleet: Fleet, action: Drain, now: float) -> None:
    action.member.settled, action.member.reason = True, action.reason or action.member.reason
    action.member.enter(State.STOPPING, now)


def _note_probe(fleet: Fleet, action: Probe, now: float) -> None:
    action.member.probe.sent_at = now


def _note_give_up_probe(fleet: Fleet, action: GiveUpProbe, now: float) -> None:
    fleet.probed(action.member, "no_answer", now)


def _note_weigh(fleet: Fleet, action: Weigh, now: float) -> None:
    action.member.wear.weigh_due = now + WEIGH_SECONDS


def _note_abort(fleet: Fleet, action: Abort, now: float) -> None:
    member = action.member
    member.reason, member.aborted_at = action.reason, now
    fleet.settle(member, now)
    member.enter(State.STOPPING, now)


def _note_kill(fleet: Fleet, action: Kill, now: float) -> None:
    member = action.member
    member.killed, member.reason = True, action.reason
    if action.fault:
        fleet.settle(member, now)
    member.settled = True
    member.enter(State.STOPPING, now)


def _note_switch(fleet: Fleet, action: Switch, now: float) -> None:
    action.release.switching = True
    action.release.marks["ready"] = now


def _note_promote(fleet: Fleet, action: Promote, now: float) -> None:
    release = action.release
    fleet.current, fleet.incoming, release.switching = release, None, False
    release.marks["serving"] = now
    fleet.young_deaths.count = 0  # Other code, other faults.
    for slot in fleet.slots.values():
        slot.failures, slot.retry_at = 0, now


def _note_abandon(fleet: Fleet, action: Abandon, now: float) -> None:
    fleet.incoming = None
    if action.release.is_reload:
        fleet.reloads.failed += 1
        fleet.reloads.last_error = action.failure.reason
    elif fleet.stop is None:  # The first boot: there is nothing to fall back on, and trying again cannot help.
        fleet.stop = Stop(now, action.failure.code)
    _note_end(fleet, action.release, action.failure, now)


def _note_finish(fleet: Fleet, action: Finish, now: float) -> None:
    action.release.finished = True
    if action.release.is_reload:
        fleet.reloads.ok += 1
    _note_end(fleet, action.release, None, now)


def _note_end(fleet: Fleet, release: Release, failure: Failure | None, now: float) -> None:
    release.marks["finished"] = now
    fleet.reloads.last, fleet.reloads.last_failure = release, failure


def _note_rehearse(fleet: Fleet, action: Rehearse, now: float) -> None:
    fleet.upgrade.rehearsed_since = now


def _note_upgrade_over(fleet: Fleet, action: CallOff | Succeed, now: float) -> None:
    fleet.upgrade = Upgrade()


def _note_give_up(fleet: Fleet, action: GiveUp, now: float) -> None:
    fleet.stop = Stop(now, EXIT_ALL_FAILING)


def _note_leave(fleet: Fleet, action: Leave, now: float) -> None:
    fleet.left = action.code


_NOTES: dict[type, Callable[[Fleet, Any, float], None]] = {
    Load: _note_load,
    Unload: _note_unload,
    Start: _note_start,
    Serve: _note_serve,
    Drain: _note_drain,
    Probe: _note_probe,
    GiveUpProbe: _note_give_up_probe,
    Weigh: _note_weigh,
    Abort: _note_abort,
    Kill: _note_kill,
    Switch: _note_switch,
    Promote: _note_promote,
    Abandon: _note_abandon,
    Finish: _note_finish,
    Rehearse: _note_rehearse,
    CallOff: _note_upgrade_over,
    Succeed: _note_upgrade_over,
    GiveUp: _note_give_up,
    Leave: _note_leave,
}
