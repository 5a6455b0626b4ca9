"""Traces as plain trees of spans, each built at once from the moments that the chronicle has kept: pure functions.

They say what went wrong by outcome and reason only: what a child or a config error said may quote a config value, and
belongs in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ragagent import names
from ragagent.errors import EXIT_CONFIG, EXIT_OK
from ragagent.supervisor.member import Member
from ragagent.supervisor.release import Failure, Release

Span = dict[str, Any]

# Each phase of a reload, from one mark of the release to the next.
_PHASES = (
    (names.RELOAD_SPAWN, "requested", "loaded"),
    (names.RELOAD_READY, "loaded", "ready"),
    (names.RELOAD_SWITCH, "ready", "serving"),
    (names.RELOAD_DRAIN, "serving", "finished"),
)
OUTCOMES = ("ok", "invalid_config", "not_ready", "stopped")
ORDERED = ("drain", "recycle", "dismissed")
LOSSES = ("crash", "signal", "hang", "killed", "left")


@dataclass(eq=False, slots=True)
class Life:
    """The moments of one member, in seconds of the monotonic clock; None: it has not come to that."""

    member: Member
    replaces: Life | None = None  # the one that was lost, whose slot it was started for
    pid: int | None = None
    ready: float | None = None
    told: float | None = None  # to finish
    lost: float | None = None  # its slot needs another one, though nobody ordered its end
    ended: float | None = None
    reason: str | None = None  # of its end, as far as it is known: one of ORDERED or LOSSES

    def reason_of(self, how: str, code: int | None) -> str:
        """Return why it ended: what the supervisor did to it explains more than how it died."""
        if self.reason in ("hang", "killed", "dismissed"):
            return self.reason
        if how.startswith("signal "):
            return "signal"
        return "crash" if code != 0 else self.reason or "left"


class Clock:
    """From this process's monotonic seconds to Unix nanoseconds, by one reading of both."""

    def __init__(self, unix_ns: int, monotonic_ns: int) -> None:
        self._offset = unix_ns - monotonic_ns

    def __call__(self, moment: float) -> int:
        return int(moment * 1e9) + self._offset


def outcome_of(failure: Failure | None) -> str:
    if failure is None:
        return "ok"
    return {EXIT_CONFIG: "invalid_config", EXIT_OK: "stopped"}.get(failure.code, "not_ready")


def of_reload(release: Release, asked: float, end: float, lives: Iterable[Life], outcome: str, unix: Clock) -> Span:
    """Return the trace of a reload: a phase or a child that has not come to its own end ends with it."""
    marks, lives = release.marks, list(lives)
    error = outcome if outcome in ("invalid_config", "not_ready") else None
    children = {
        names.RELOAD_READY: [_spawn(life, end, unix) for life in lives if _builds(life, release)],
        names.RELOAD_DRAIN: [_drain(life, end, unix) for life in lives if _drains_for(life, release)],
    }
    phases = [
        _span(
            name,
            unix(marks[begin]),
            unix(marks.get(until, end)),
            error=None if until in marks else error,
            spans=children.get(name, []),
        )
        for name, begin, until in _PHASES
        if begin in marks
    ]
    attributes = {
        names.RELOAD_OUTCOME: outcome,
        names.RELOAD_CHANGES: sorted(release.changes),
        names.RELEASE: release.number,
        names.RELEASE_PREVIOUS: release.previous,
    }
    return _span(names.RELOAD, unix(asked), unix(end), attributes, error, phases)


def of_replacement(dead: Life, successor: Life, end: float, unix: Clock) -> Span:
    """Return the trace of one member lost, until its successor runs, or is lost as well."""
    assert dead.lost is not None
    spans = [_spawn(successor, end, unix)]
    return _span(names.WORKER_LIFECYCLE, unix(dead.lost), unix(end), _of(dead), dead.reason, spans)


def _builds(life: Life, release: Release) -> bool:
    """Whether `release` waited for it: what is started later scales it, or replaces a loss."""
    return life.member.release is release and life.member.born <= release.marks.get("ready", life.member.born)


def _drains_for(life: Life, release: Release) -> bool:
    """Whether it made way for `release`. The old indexer is told at the switch, a moment before the workers."""
    return life.member.release is not release and life.told is not None and life.told >= release.marks.get("ready", 0.0)


def _spawn(life: Life, end: float, unix: Clock) -> Span:
    ready = life.ready if life.ready is not None else (life.ended or end)
    error = (life.reason or "not_ready") if life.ready is None else None
    return _span(names.WORKER_SPAWN, unix(life.member.born), unix(ready), _of(life), error)


def _drain(life: Life, end: float, unix: Clock) -> Span:
    assert life.told is not None
    error = life.reason if life.reason not in (None, "drain", "recycle") else None
    return _span(names.WORKER_DRAIN, unix(life.told), unix(life.ended or end), _of(life), error)


def _of(life: Life) -> dict[str, Any]:
    member = life.member
    attributes: dict[str, Any] = {
        names.PROCESS_ROLE: member.role,
        names.WORKER_SLOT: member.slot,
        names.RELEASE: member.release.number,
        names.PROCESS_PID: life.pid,
        names.EXIT_REASON: life.reason,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _span(
    name: str,
    start: int,
    end: int,
    attributes: Mapping[str, Any] | None = None,
    error: str | None = None,
    spans: list[Span] | None = None,
) -> Span:
    found = {**(attributes or {}), **({names.ERROR_TYPE: error} if error else {})}
    return {
        "name": name,
        "start": start,
        "end": end,
        "is_error": error is not None,
        "attributes": found,
        "spans": spans or [],
    }
