"""What the control socket can be asked: one function per command, each giving the reply or saying when it will come.

status                     what there is, at once
reload                     when it has ended: ok, or why not
scale    {"workers": N}    when N workers run, and no other
recycle  {"slot": N|null}  when each of these workers has been replaced
drain                      when everything has finished and the supervisor leaves
logs     {"lines": N}      the last lines that the supervisor logged, at once
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragagent import __version__
from ragagent.supervisor import memory, status
from ragagent.supervisor.control import Reply
from ragagent.supervisor.crew import Crew
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.log import RECENT_LINES, Recent
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import Release
from ragagent.supervisor.waiters import Answer

MAX_WORKERS = 1024  # a slip of the finger, beyond it

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Commands:
    """`recent` are our own last log lines, `log_file` is where everybody's go, if they go to one; `stop` begins a
    graceful stop, as SIGTERM does."""

    fleet: Fleet
    crew: Crew
    where: str
    started_at: float
    recent: Recent
    log_file: Path | None
    stop: Callable[[], None]

    def answer(self, request: Arguments) -> Reply | Answer:
        """Return the reply, or the function that will have it."""
        command = request.get("command")
        found = _COMMANDS.get(command) if isinstance(command, str) else None
        if found is None:
            known = ", ".join(f"'{name}'" for name in _COMMANDS)
            return refused(f"Unknown command '{command}'; there are {known}.")
        return found(self, request)

    def _status(self, _: Arguments) -> Reply:
        fleet = self.fleet
        supervisor = {
            "pid": os.getpid(),
            "version": __version__,
            "state": status.state(fleet),
            "release": fleet.current.number if fleet.current is not None else None,
            "workers_wanted": fleet.current.workers if fleet.current is not None else None,
            "started_at": self.started_at,
            "pss_bytes": memory.pss_bytes(os.getpid()),
            "reloads": status.reloads(fleet),
        }
        tree = status.status(fleet, self.crew.children, time.monotonic())
        return {"ok": True, "supervisor": supervisor, "bind": self.where, **tree}

    def _reload(self, _: Arguments) -> Answer:
        number = self.fleet.ask_reload()

        def ended() -> Reply | None:
            last = self.fleet.reloads.last
            return None if last is None or last.number < number else _outcome(self.fleet, last)

        return ended

    def _scale(self, request: Arguments) -> Reply | Answer:
        workers = request.get("workers")
        if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
            return refused(f"'workers' has value {workers!r}; it must be a whole number from 1 to {MAX_WORKERS}.")
        release = self.fleet.current
        if release is None:
            return refused("No release serves yet.")
        self.fleet.ask_workers(workers)

        def reached() -> Reply | None:
            if self.fleet.current is not release:
                return refused("A reload has brought its own number of workers.")
            if release.workers != workers:
                return refused(f"Somebody else has asked for {release.workers} workers.")
            return {"ok": True, "workers": workers} if self.fleet.is_whole else _stuck(self.fleet)

        return reached

    def _recycle(self, request: Arguments) -> Reply | Answer:
        slot = request.get("slot")
        if slot is not None and (type(slot) is not int or slot < 0):
            return refused(f"'slot' has value {slot!r}; it must be the number of a worker, or null for all.")
        leaving = self.fleet.ask_recycle(slot)
        if not leaving:
            return refused("There is no such worker." if slot is not None else "There are no workers yet.")
        return lambda: _replaced(self.fleet, leaving)

    def _drain(self, _: Arguments) -> Answer:
        if self.fleet.stop is None:  # A second SIGTERM means "at once"; a second drain means nothing.
            self.stop()
        return lambda: None if self.fleet.left is None else {"ok": True, "code": self.fleet.left}

    def _logs(self, request: Arguments) -> Reply:
        lines = request.get("lines", RECENT_LINES)
        if type(lines) is not int or lines < 0:
            return refused(f"'lines' has value {lines!r}; it must be a whole number.")
        file = str(self.log_file) if self.log_file is not None else None
        return {"ok": True, "lines": self.recent.lines(lines), "file": file}


def refused(reason: str) -> Reply:
    return {"ok": False, "reason": reason}


def _outcome(fleet: Fleet, release: Release) -> Reply:
    failure = fleet.reloads.last_failure
    return {
        "ok": failure is None,
        "reason": failure.reason if failure is not None else None,
        "changes": dict(sorted(release.changes.items())),
        "release": release.number,
    }


def _replaced(fleet: Fleet, leaving: list[Member]) -> Reply | None:
    if any(member in fleet.members for member in leaving):
        return _stuck(fleet)
    return {"ok": True, "slots": sorted(member.slot for member in leaving)}


def _stuck(fleet: Fleet) -> Reply | None:
    """Return what keeps the fleet from becoming whole, if it cannot be expected to."""
    wanted = fleet.current.slots() if fleet.current is not None else []
    failing = [(key, fleet.slot(key)) for key in wanted if fleet.slot(key).state is State.FATAL]
    return refused(f"{failing[0][0][0]} {failing[0][0][1]} keeps dying: {failing[0][1].last_exit}") if failing else None


_COMMANDS: dict[str, Callable[[Commands, Arguments], Reply | Answer]] = {
    "status": Commands._status,
    "reload": Commands._reload,
    "scale": Commands._scale,
    "recycle": Commands._recycle,
    "drain": Commands._drain,
    "logs": Commands._logs,
}
