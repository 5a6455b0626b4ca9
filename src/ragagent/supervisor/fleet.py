"""What the fleet is: members, slots and releases as plain values, and what each event does to them. No system call.

A *member* is one child process. It fills a *slot* (worker 0, worker 1, ..., the indexer) of a *release*, one loaded
pair of code and config. `current` serves; `incoming` is what a reload builds beside it, and replaces it only as a
whole. The states are supervisord's, with one more: a child that is ready serves only when it is told to, which is what
lets a whole release change at one moment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ragagent.errors import EXIT_ALL_FAILING, EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor.facts import Facts, Limits

Role = Literal["worker", "indexer"]
SlotKey = tuple[Role, int]

INDEXER: SlotKey = ("indexer", 0)

# A child that served this long was not broken from birth: its death starts a new count.
YOUNG_SECONDS = 10.0
BACKOFF_SECONDS = 0.25
BACKOFF_MAX_SECONDS = 30.0
FATAL_FAILURES = 6  # Young deaths in a row after which a slot is called fatal. It is retried all the same.


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


class Zygote(StrEnum):
    LOADING = "loading"  # imports the code, reads the config
    LOADED = "loaded"  # forks on request
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    code: int = EXIT_CANNOT_START


@dataclass(frozen=True, slots=True)
class Stop:
    at: float
    code: int
    quick: bool = False


@dataclass(eq=False, slots=True)
class Release:
    number: int
    limits: Limits  # its predecessor's, until its zygote has read the config
    previous: int | None = None  # the release that it is to replace; None: the first boot
    facts: Facts | None = None
    changes: dict[str, str] = field(default_factory=dict)  # key → what a reload does with it
    workers: int = 0  # how many it wants
    zygote: Zygote = Zygote.LOST
    zygote_since: float = 0.0
    zygote_failures: int = 0
    zygote_retry_at: float = 0.0
    switching: bool = False
    finished: bool = False  # it is current, and no member of an older release is left
    failure: Failure | None = None
    marks: dict[str, float] = field(default_factory=dict)  # when it was requested, loaded, ready, serving, finished

    @property
    def is_reload(self) -> bool:
        return self.previous is not None

    def slots(self) -> list[SlotKey]:
        return [*(("worker", slot) for slot in range(self.workers)), INDEXER]


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
    killed: bool = False
    settled: bool = False  # its end is accounted for: it was ordered, or has been counted as a failure
    reason: str = ""

    @property
    def key(self) -> SlotKey:
        return self.role, self.slot

    @property
    def fills(self) -> bool:
        """Whether its slot needs nobody else."""
        return self.state in (State.STARTING, State.READY, State.RUNNING)

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


@dataclass(slots=True)
class Reloads:
    ok: int = 0
    failed: int = 0
    last_error: str | None = None


@dataclass(eq=False, slots=True)
class Fleet:
    limits: Limits  # until a release has read its own
    jitter: random.Random = field(default_factory=random.Random)
    members: list[Member] = field(default_factory=list)
    slots: dict[SlotKey, Slot] = field(default_factory=dict)
    current: Release | None = None
    incoming: Release | None = None
    last_number: int = 0
    reload_wanted: bool = True  # The first boot is a reload from nothing.
    reloads: Reloads = field(default_factory=Reloads)
    stop: Stop | None = None
    left: int | None = None  # the exit code, once everything has ended

    # -- what is asked of it

    def ask_reload(self) -> int:
        """Want one more reload; however often it is asked meanwhile, one follows. Return the number it will have."""
        self.reload_wanted = True
        return self.last_number + 1

    def ask_stop(self, now: float) -> None:
        """End everything gracefully; asked a second time, at once."""
        if self.stop is None:
            self.stop = Stop(now, EXIT_ALL_FAILING if self.is_failing else EXIT_OK)
        else:
            self.stop = Stop(self.stop.at, self.stop.code, quick=True)

    def ask_scale(self, step: int) -> None:
        """One worker more or less than the current release has, never none; the next reload brings its own count."""
        if self.current is not None:
            self.current.workers = max(self.current.workers + step, 1)

    # -- what happens to it

    def loaded(self, release: Release, facts: Facts, now: float) -> None:
        """Its zygote can fork. A release in the making takes its numbers from the config that was read."""
        release.zygote, release.zygote_since, release.zygote_failures = Zygote.LOADED, now, 0
        if release is not self.incoming:  # A zygote that replaces a dead one changes nothing else.
            return
        release.facts, release.limits, release.workers = facts, facts.limits, facts.workers
        release.marks["loaded"] = now
        if self.current is not None and self.current.facts is not None:
            release.changes = facts.changes(self.current.facts)
        fixed = sorted(key for key, reload in release.changes.items() if reload == "restart")
        if fixed:
            reason = f"{', '.join(fixed)} changed, which needs a restart of the supervisor, not a reload"
            self.fail(release, Failure(reason, EXIT_CONFIG))

    def zygote_lost(self, release: Release, failure: Failure, now: float) -> None:
        """The zygote died, or could not load. Children that it has forked live on; a release in the making fails."""
        release.zygote, release.zygote_since = Zygote.LOST, now
        release.zygote_failures += 1
        release.zygote_retry_at = now + self._delay(release.zygote_failures)
        if release is self.incoming:
            self.fail(release, failure)

    def heard(self, member: Member, now: float) -> None:
        member.beat_at = now

    def ready(self, member: Member, now: float) -> bool:
        return member.enter(State.READY, now)

    def serving(self, member: Member, now: float) -> bool:
        if member.told_at is None or not member.enter(State.RUNNING, now):
            return False
        member.running_at = now
        return True

    def leaving(self, member: Member, now: float) -> bool:
        """It stops by itself (someone sent it SIGTERM): its slot is free for another one."""
        self.settle(member, now)
        return member.enter(State.STOPPING, now)

    def exited(self, member: Member, how: str, code: int | None, now: float) -> None:
        member.reason = f"{member.reason} ({how})" if member.reason else how
        self.settle(member, now, code)
        member.enter(State.EXITED, now)
        self.members.remove(member)
        self.slot(member.key).last_exit = member.reason

    # -- what it keeps count of

    def settle(self, member: Member, now: float, code: int | None = None) -> None:
        """Account for an end that nobody ordered: fail the release in the making, or put the slot on its backoff."""
        if member.settled:
            return
        member.settled = True
        if member.release is self.incoming:
            reason = f"{member} did not start: {member.reason or 'it left'}"
            self.fail(member.release, Failure(reason, EXIT_CONFIG if code == EXIT_CONFIG else EXIT_CANNOT_START))
        elif member.release is self.current:
            self._count(member, now)

    def _count(self, member: Member, now: float) -> None:
        slot = self.slot(member.key)
        slot.restarts += 1
        grown_up = member.running_at is not None and now - member.running_at >= YOUNG_SECONDS
        slot.failures = 0 if grown_up else slot.failures + 1
        slot.retry_at = now + self._delay(slot.failures)

    def fail(self, release: Release, failure: Failure) -> None:
        if release.failure is None:  # What follows from the first failure explains nothing.
            release.failure = failure

    def slot(self, key: SlotKey) -> Slot:
        return self.slots.setdefault(key, Slot())

    def of(self, release: Release | None, role: Role | None = None) -> list[Member]:
        return [m for m in self.members if m.release is release and role in (None, m.role)]

    @property
    def strays(self) -> list[Member]:
        """Members of releases that are neither serving nor in the making."""
        return [m for m in self.members if m.release is not self.current and m.release is not self.incoming]

    @property
    def is_failing(self) -> bool:
        """Whether no worker runs, and every worker's slot of the current release has failed."""
        if self.current is None or any(m.role == "worker" and m.state is State.RUNNING for m in self.members):
            return False
        return all(self.slot(key).failures for key in self.current.slots() if key[0] == "worker")

    def _delay(self, failures: int) -> float:
        """Nothing after the first death, so that one crash costs no time; then 0.25 s, doubling up to 30 s."""
        if failures <= 1:
            return 0.0
        seconds = min(BACKOFF_SECONDS * 2.0 ** min(failures - 2, 16), BACKOFF_MAX_SECONDS)
        return seconds * self.jitter.uniform(1.0, 1.25)
