"""What happened and when: the supervisor's own telemetry, told of every step and every exit, asked for nothing.

It keeps the moments of each member, turns them into traces when a reload or a replacement is over, and keeps the
totals; the reporter carries all of it to the process that exports. It changes nothing in the fleet, and what goes
wrong in here is logged and stays in here: no fault of telemetry may cost a worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from ragagent import names
from ragagent.supervisor import trace
from ragagent.supervisor.actions import (
    Abandon,
    Abort,
    Action,
    Drain,
    Finish,
    GiveUpProbe,
    Kill,
    Leave,
    Load,
    Promote,
    Start,
    Succeed,
)
from ragagent.supervisor.census import census, from_zero
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, Outcome, State
from ragagent.supervisor.process import Child
from ragagent.supervisor.release import Release, SlotKey
from ragagent.supervisor.reporter import Reporter
from ragagent.supervisor.trace import LOSSES, Clock, Life

CLOSE_SECONDS = 2.0

_P = ParamSpec("_P")

logger = logging.getLogger("ragagent.supervisor")


def _harmless(step: Callable[_P, None]) -> Callable[_P, None]:
    @wraps(step)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            step(*args, **kwargs)
        except Exception:
            logger.exception("The supervisor's telemetry failed; the supervisor goes on.")

    return guarded


class Chronicle:
    """Reads `fleet`, which others change. Moments are of the monotonic clock."""

    def __init__(self, fleet: Fleet, reporter: Reporter) -> None:
        self._fleet = fleet
        self._reporter = reporter
        self._began = time.time_ns()
        self._tally = from_zero()
        self._children: Mapping[Member, Child] = {}  # as of the last turn; the crew changes it
        self._lives: dict[Member, Life] = {}
        self._lost: dict[SlotKey, Life] = {}  # slots of the current release that wait for a successor
        self._asked: float | None = None  # when the reload that has not begun yet was asked for
        self._reload: tuple[Release, float] | None = None  # the one under way, and when it was asked for
        self._measure_at = 0.0
        if fleet.current is not None:  # Left to us by the image before this one.
            self._point(fleet.current)

    # -- what the arbiter and the crew tell of

    @_harmless
    def asked(self, now: float) -> None:
        """Someone wants a reload. It may have to wait for the end of another; several become one."""
        if self._asked is None:
            self._asked = now

    @_harmless
    def took(self, action: Action, now: float) -> None:
        """The supervisor takes this step: the fleet has noted it, and no process has felt it yet."""
        note = _NOTES.get(type(action))
        if note is not None:
            note(self, action, now)

    @_harmless
    def entered(self, member: Member, pid: int | None, now: float) -> None:
        """A member has told of its new state."""
        life = self._life(member)
        life.pid = pid
        if member.state is State.READY:
            life.ready = now
            self._tally.record(names.WORKER_SPAWN_DURATION, _role(member), now - member.born)
        elif member.state is State.RUNNING:
            self._replaced(life, now)
        elif member.state is State.STOPPING:
            life.reason = "left"
            self._lose(life, now)

    @_harmless
    def exited(self, member: Member, pid: int | None, how: str, code: int | None, now: float) -> None:
        """A member is gone; `how` is its wait status in words. Told before the fleet is."""
        life = self._life(member)
        life.pid, life.ended, life.reason = pid, now, life.reason_of(how, code)
        attributes = {**_role(member), names.EXIT_REASON: life.reason}
        self._tally.count(names.WORKER_EXITS, attributes)
        if life.told is not None:
            self._tally.record(names.WORKER_DRAIN_DURATION, attributes, now - life.told)
        elif life.reason in LOSSES:
            self._lose(life, now)
        self._replaced(life, now)
        if self._reload is None:  # Otherwise its trace will tell of it.
            del self._lives[member]

    @_harmless
    def probed(self, member: Member, outcome: Outcome) -> None:
        self._tally.count(names.PROBE_RESULTS, {names.PROBE_OUTCOME: outcome})

    @_harmless
    def turn(self, children: Mapping[Member, Child], now: float) -> None:
        """Every turn of the loop: keep the exporter alive, and measure when it is time."""
        self._children = children
        self._reporter.tend(now)
        current = self._fleet.current
        if current is None or current.facts is None:
            return
        for key in self._lost.keys() - current.slots():  # Scaled away while it waited for a successor.
            del self._lost[key]
        if now >= self._measure_at:
            self._measure_at = now + current.facts.metrics_seconds
            self._measure()

    @_harmless
    def close(self) -> None:
        """Send the last numbers, and give the exporter two seconds."""
        self._measure()
        self._reporter.close(CLOSE_SECONDS)

    # -- steps

    def _load(self, action: Load, now: float) -> None:
        release = action.release
        if release is not self._fleet.incoming:  # A zygote that replaces a dead one is no reload.
            return
        asked, self._asked = self._asked, None
        if release.is_reload:
            self._reload = release, asked if asked is not None else release.marks["requested"]

    def _start(self, action: Start, now: float) -> None:
        member = action.member
        life = self._lives[member] = Life(member)
        lost = self._lost.get(member.key)
        if lost is not None and lost.member.release is member.release:  # Not one that an incoming release starts.
            del self._lost[member.key]
            life.replaces = lost
            self._tally.count(names.WORKER_RESTARTS, {**_role(member), names.EXIT_REASON: lost.reason or "left"})

    def _drain(self, action: Drain, now: float) -> None:
        life = self._life(action.member)
        life.told = now
        life.reason = "recycle" if action.reason else "drain"

    def _give_up_probe(self, action: GiveUpProbe, now: float) -> None:
        self.probed(action.member, "no_answer")

    def _abort(self, action: Abort, now: float) -> None:
        life = self._life(action.member)
        life.reason = "hang"
        self._lose(life, now)

    def _kill(self, action: Kill, now: float) -> None:
        life = self._life(action.member)
        if life.reason == "hang":
            return  # SIGABRT was not enough.
        if action.member.told_at is None and not action.fault:
            life.reason = "dismissed"
            return
        life.reason = "killed"
        if action.fault:
            self._lose(life, now)

    def _promote(self, action: Promote, now: float) -> None:
        self._point(action.release)
        self._lost.clear()  # The new release fills those slots.

    def _abandon(self, action: Abandon, now: float) -> None:
        self._end(trace.outcome_of(action.failure), now)

    def _finish(self, action: Finish, now: float) -> None:
        self._end("ok", now)

    def _leave(self, action: Leave, now: float) -> None:
        """A stop that came while the old release drained cut the reload short."""
        self._end("stopped", now)

    def _succeed(self, action: Succeed, now: float) -> None:
        """The image that follows counts from zero; the line ends with this one, and the exporter sends what is left."""
        self._measure()

    def _end(self, outcome: str, now: float) -> None:
        if self._reload is None:
            return
        (release, asked), self._reload = self._reload, None
        attributes = {names.RELOAD_OUTCOME: outcome}
        self._tally.count(names.RELOADS, attributes)
        self._tally.record(names.RELOAD_DURATION, attributes, now - asked)
        self._send(trace.of_reload(release, asked, now, self._lives.values(), outcome, _clock()))
        self._lives = {member: life for member, life in self._lives.items() if life.ended is None}

    def _point(self, release: Release) -> None:
        if release.facts is not None:
            self._reporter.point_at(release.facts.endpoint, release.facts.service_name)

    # -- losses

    def _lose(self, life: Life, now: float) -> None:
        """Note that a slot of the current release has to be filled again, though nobody ordered that."""
        fleet, release, key = self._fleet, life.member.release, life.member.key
        if (
            life.lost is not None
            or fleet.stop is not None
            or release is not fleet.current
            or key not in release.slots()
        ):
            return
        if any(peer.fills and peer.key == key and peer is not life.member for peer in fleet.of(release)):
            return  # A recycling has two of them for a while, and one is enough.
        life.lost = now
        self._lost[key] = life

    def _replaced(self, life: Life, now: float) -> None:
        """Its predecessor's story is over: it runs, or is lost as well."""
        if life.replaces is not None:
            self._send(trace.of_replacement(life.replaces, life, now, _clock()))
            life.replaces = None

    # -- numbers

    def _measure(self) -> None:
        points = [*self._tally.points(), *census(self._fleet, self._children)]
        points.append((names.REPORTS_DROPPED.name, {}, self._reporter.dropped))
        self._reporter.send({"metrics": {"began": self._began, "now": time.time_ns(), "points": points}})

    def _send(self, span: trace.Span) -> None:
        self._reporter.send({"trace": span})

    def _life(self, member: Member) -> Life:
        return self._lives.setdefault(member, Life(member))


def _role(member: Member) -> dict[str, str]:
    return {names.PROCESS_ROLE: member.role}


def _clock() -> Clock:
    return Clock(time.time_ns(), time.monotonic_ns())


_NOTES: dict[type, Callable[[Chronicle, Any, float], None]] = {
    Load: Chronicle._load,
    Start: Chronicle._start,
    Drain: Chronicle._drain,
    GiveUpProbe: Chronicle._give_up_probe,
    Abort: Chronicle._abort,
    Kill: Chronicle._kill,
    Promote: Chronicle._promote,
    Abandon: Chronicle._abandon,
    Finish: Chronicle._finish,
    Succeed: Chronicle._succeed,
    Leave: Chronicle._leave,
}
