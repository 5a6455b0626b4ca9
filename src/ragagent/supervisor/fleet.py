"""What the fleet is, as plain values, and what each event does to it. No system call.

`current` serves; `incoming` is what a reload builds beside it, and replaces it only as a whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ragagent.errors import EXIT_ALL_FAILING, EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor import backoff, wear
from ragagent.supervisor.backoff import YoungDeaths
from ragagent.supervisor.facts import Facts, Limits
from ragagent.supervisor.member import FATAL_FAILURES, Member, Outcome, Slot, State
from ragagent.supervisor.release import Failure, Release, Role, SlotKey, Zygote


@dataclass(frozen=True, slots=True)
class Stop:
    at: float
    code: int
    quick: bool = False


@dataclass(slots=True)
class Reloads:
    ok: int = 0
    failed: int = 0
    last_error: str | None = None
    last: Release | None = None  # the one that ended last, and how
    last_failure: Failure | None = None


@dataclass(slots=True)
class Upgrade:
    """Of the supervisor's own code, which SIGUSR2 asks for."""

    wanted: bool = False
    rehearsed_since: float | None = None
    failure: str | None = None
    can_succeed: bool = False


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
    young_deaths: YoungDeaths = field(default_factory=YoungDeaths)
    upgrade: Upgrade = field(default_factory=Upgrade)
    recycled_at: float = float("-inf")
    answered: bool = False  # a worker has answered a probe, or has run when there are none
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

    def ask_workers(self, count: int) -> None:
        """Want so many workers of the current release, never none; the next reload brings its own count."""
        if self.current is not None:
            self.current.workers = max(count, 1)

    def ask_recycle(self, slot: int | None) -> list[Member]:
        """Want these workers of the current release replaced, one after the other; None: all. Return them."""
        wanted = [m for m in self.of(self.current, "worker") if m.fills and slot in (None, m.slot)]
        for member in wanted:
            member.wear.asked = True
        return wanted

    def ask_upgrade(self) -> None:
        """Want the supervisor's own code replaced, as soon as no reload is in the making."""
        self.upgrade.wanted = True

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
        release.zygote_retry_at = now + backoff.delay(release.zygote_failures, self.jitter)
        if release is self.incoming:
            self.fail(release, failure)

    def rehearsed(self, failure: str | None) -> None:
        """The rehearsal of the new code has ended; None: it could take over."""
        self.upgrade.failure, self.upgrade.can_succeed = failure, failure is None

    def heard(self, member: Member, now: float) -> None:
        member.beat_at = now

    def ready(self, member: Member, now: float) -> bool:
        return member.enter(State.READY, now)

    def serving(self, member: Member, now: float) -> bool:
        if member.told_at is None or not member.enter(State.RUNNING, now):
            return False
        member.running_at = member.probe.due = now
        if not member.release.limits.probe.interval_seconds and member.role == "worker":
            self.answered = True
        return True

    def probed(self, member: Member, outcome: Outcome, now: float) -> None:
        """The probe that was under way has ended."""
        probe = member.probe
        probe.sent_at, probe.outcome = None, outcome
        probe.due = now + member.release.limits.probe.interval_seconds
        probe.failures = 0 if outcome == "ok" else probe.failures + 1
        self.answered |= outcome == "ok"

    def not_probed(self, member: Member, now: float) -> None:
        """The probe could not even be sent, for reasons of ours: it says nothing of the member."""
        member.probe.sent_at, member.probe.due = None, now + member.release.limits.probe.interval_seconds

    def weighed(self, member: Member, pss_bytes: int | None, now: float) -> None:
        wear.weigh(member, pss_bytes, now)

    def leaving(self, member: Member, now: float) -> bool:
        """It stops by itself (someone sent it SIGTERM): its slot is free for another one."""
        self.settle(member, now)
        return member.enter(State.STOPPING, now)

    def finished(self, member: Member) -> None:
        """It holds nothing any more, so the next one may finish. It moves to no other state by that."""
        member.finished = True

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
        if member.running_at is not None and now - member.running_at >= backoff.YOUNG_SECONDS:
            slot.failures, slot.retry_at = 0, now
            return
        slot.failures += 1
        self.young_deaths.add(now)
        # Whichever is worse: this slot by itself, or all of them together.
        failures = max(slot.failures, self.young_deaths.beyond(len(self.slots)))
        slot.retry_at = now + backoff.delay(failures, self.jitter)

    def fail(self, release: Release, failure: Failure) -> None:
        if release.failure is None:  # What follows from the first failure explains nothing.
            release.failure = failure

    # -- what can be asked of it

    def slot(self, key: SlotKey) -> Slot:
        return self.slots.setdefault(key, Slot())

    def of(self, release: Release | None, role: Role | None = None) -> list[Member]:
        return [m for m in self.members if m.release is release and role in (None, m.role)]

    @property
    def strays(self) -> list[Member]:
        """Members of releases that are neither serving nor in the making."""
        return [m for m in self.members if m.release is not self.current and m.release is not self.incoming]

    @property
    def is_whole(self) -> bool:
        """Whether the current release runs in full, and nothing else does."""
        if self.current is None or self.strays or self.incoming is not None:
            return False
        running = sorted(member.key for member in self.members if member.state is State.RUNNING)
        return running == sorted(self.current.slots()) and len(self.members) == len(running)

    @property
    def is_failing(self) -> bool:
        """Whether no worker runs, and every worker's slot of the current release has failed."""
        return self._all_slots_failed(1)

    @property
    def is_hopeless(self) -> bool:
        """Whether no worker runs, and every worker's slot has failed so often that trying again is not serving."""
        return self._all_slots_failed(FATAL_FAILURES)

    def _all_slots_failed(self, times: int) -> bool:
        if self.current is None or any(m.role == "worker" and m.state is State.RUNNING for m in self.members):
            return False
        return all(self.slot(key).failures >= times for key in self.current.slots() if key[0] == "worker")
