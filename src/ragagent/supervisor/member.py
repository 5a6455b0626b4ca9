"""A member is one child process; it fills a slot (worker 0, worker 1, ..., the indexer) of a release.

The states are supervisord's, with one more: a child that is ready serves only when it is told to, which is what lets a
whole release change at one moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ragagent.supervisor.release import Release, Role, SlotKey

Outcome = Literal["ok", "not_ready", "no_answer"]  # of a probe

FATAL_FAILURES = 9  # Young deaths in a row after which a slot is called fatal: about half a minute of trying.


class State(StrEnum):
    STARTING = "starting"  # forked; opens what it needs
    READY = "ready"  # could serve, and waits for the order
    RUNNING = "running"
    STOPPING = "stopping"  # takes nothing new; finishes, or is being killed
    EXITED = "exited"
    # Of a slot that nobody fills:
    BACKOFF = "backoff"
    FATAL = "fatal"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.STOPPING, State.EXITED}),
    State.READY: frozenset({State.RUNNING, State.STOPPING, State.EXITED}),
    State.RUNNING: frozenset({State.STOPPING, State.EXITED}),
    State.STOPPING: frozenset({State.EXITED}),
    State.EXITED: frozenset(),
}


@dataclass(slots=True)
class Probing:
    """What became of asking a worker whether it is ready."""

    due: float = 0.0
    sent_at: float | None = None  # of the question that is not answered yet
    outcome: Outcome | None = None
    failures: int = 0  # in a row


@dataclass(slots=True)
class Wear:
    """What a worker has been through, and how much of the limits it may use up."""

    share: float = 1.0
    requests: int = 0
    pss_bytes: int | None = None
    weigh_due: float = 0.0
    overweight: int = 0  # weighings in a row above the limit
    asked: bool = False  # somebody wants it replaced, whatever the limits say
    why: str = ""  # a successor was started for it


@dataclass(eq=False, slots=True)
class Member:
    role: Role
    slot: int
    release: Release
    born: float
    state: State = State.STARTING
    since: float = 0.0  # when it entered `state`
    beat_at: float = 0.0
    told_at: float | None = None  # when it was told to serve
    running_at: float | None = None
    aborted_at: float | None = None
    finished: bool = False  # it has answered all that it held, and only has to leave
    killed: bool = False
    settled: bool = False  # its end is accounted for: it was ordered, or has been counted as a failure
    reason: str = ""
    probe: Probing = field(default_factory=Probing)
    wear: Wear = field(default_factory=Wear)

    @property
    def key(self) -> SlotKey:
        return self.role, self.slot

    @property
    def fills(self) -> bool:
        """Whether its slot needs nobody else."""
        return self.state in (State.STARTING, State.READY, State.RUNNING)

    @property
    def is_healthy(self) -> bool:
        return self.state is State.RUNNING and self.probe.outcome in (None, "ok")

    def enter(self, state: State, now: float) -> bool:
        """Move to `state`; False, and no move, where the table knows no such step (a word that crossed an order)."""
        if state not in TRANSITIONS[self.state]:
            return False
        self.state, self.since = state, now
        return True

    def __str__(self) -> str:
        name = f"worker {self.slot}" if self.role == "worker" else "indexer"
        return f"{name} of release {self.release.number}"


@dataclass(slots=True)
class Slot:
    """What is remembered of a slot between its members."""

    restarts: int = 0
    failures: int = 0
    retry_at: float = 0.0
    last_exit: str | None = None

    @property
    def state(self) -> State:
        return State.FATAL if self.failures >= FATAL_FAILURES else State.BACKOFF
