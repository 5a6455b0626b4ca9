"""The processes behind the fleet: what they say and how they die goes in, what is asked of them goes out.

It knows which process is which member's; it decides nothing. Whatever it learns it tells the fleet, at once.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping, Sequence

from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG
from ragagent.supervisor.chronicle import Chronicle
from ragagent.supervisor.facts import Facts
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member
from ragagent.supervisor.probe import Probe
from ragagent.supervisor.process import Child, Helpers, Message, ZygoteProcess, described
from ragagent.supervisor.release import Failure, Release

_MISFIT = "its code speaks otherwise than this supervisor does: upgrade the supervisor first (SIGUSR2), or restart it"

logger = logging.getLogger("ragagent.supervisor")


class Crew:
    """`arguments` is the zygotes' command line, `listeners` what they inherit. Its callbacks live in `selector`."""

    def __init__(
        self,
        fleet: Fleet,
        selector: selectors.BaseSelector,
        listeners: Sequence[socket.socket],
        arguments: Sequence[str],
        helpers: Helpers,
        chronicle: Chronicle,
    ) -> None:
        self.children: dict[Member, Child] = {}
        self.zygotes: dict[Release, ZygoteProcess] = {}
        self._probes: dict[Member, Probe] = {}
        self._helpers = helpers
        self._fleet = fleet
        self._selector = selector
        self._listeners = listeners
        self._arguments = arguments
        self._chronicle = chronicle

    def adopt(self, children: Mapping[Member, Child], zygotes: Mapping[Release, ZygoteProcess]) -> None:
        """Take over what an earlier image of this process has started."""
        for member, child in children.items():
            self._watch(member, child)
        for release, zygote in zygotes.items():
            self._watch_zygote(release, zygote)

    # -- what is asked of processes

    def load(self, release: Release) -> None:
        """Exec a zygote for `release`."""
        try:
            zygote = ZygoteProcess.spawn(self._listeners, self._arguments)
        except OSError as exc:
            self._lost(release, Failure(f"a new interpreter cannot be started: {exc.strerror}"))
            return
        self._watch_zygote(release, zygote)

    def unload(self, release: Release) -> None:
        """End the zygote of `release`, if it has one."""
        zygote = self.zygotes.pop(release, None)
        if zygote is not None:
            self._forget(zygote)
            zygote.kill()

    def start(self, member: Member) -> None:
        """Have the zygote fork `member`."""
        self._watch(member, self.zygotes[member.release].fork(member.role, member.slot))

    def serve(self, member: Member) -> None:
        self.children[member].order("serve")

    def probe(self, member: Member) -> None:
        """Ask `member` whether it is ready; the fleet hears of the answer when it comes."""
        try:
            probe = Probe()
        except OSError as exc:  # Out of descriptors: our fault, not the worker's.
            logger.warning("%s cannot be probed: %s.", member, exc.strerror)
            self._fleet.not_probed(member, time.monotonic())
            return
        with probe.theirs:
            self.children[member].order("probe", probe.theirs)
        self._probes[member] = probe
        self._selector.register(probe, selectors.EVENT_READ, lambda: self._hear_probe(member))

    def give_up_probe(self, member: Member) -> None:
        probe = self._probes.pop(member, None)
        if probe is not None:
            self._forget(probe)
            probe.close()

    def weigh(self, member: Member) -> None:
        """Tell the fleet how much memory `member` takes."""
        self._fleet.weighed(member, self.children[member].pss_bytes(), time.monotonic())

    def signal(self, member: Member, number: signal.Signals) -> None:
        child = self.children[member]
        if child.pid is not None:
            child.signal(number)
        elif number == signal.SIGKILL:  # Not born yet. Without its lifeline it will leave when it is.
            self._gone(member, "it was killed before it was born", None)
            if member.release in self.zygotes:  # Asked to fork and did not: the next one must not wait for it as well.
                self._lost(member.release, Failure("its zygote does not fork"))

    def reopen_logs(self) -> None:
        for zygote in self.zygotes.values():
            zygote.reopen_log()
        for child in self.children.values():
            child.reopen_log()

    def close(self) -> None:
        for release in list(self.zygotes):
            self.unload(release)

    def _watch(self, member: Member, child: Child) -> None:
        self.children[member] = child
        self._selector.register(child, selectors.EVENT_READ, lambda: self._hear(member))

    def _watch_zygote(self, release: Release, zygote: ZygoteProcess) -> None:
        self.zygotes[release] = zygote
        self._selector.register(zygote, selectors.EVENT_READ, lambda: self._hear_zygote(release))

    # -- what processes say

    def _hear(self, member: Member) -> None:
        child = self.children[member]
        self._take(member, child)
        if not child.at_end:
            return
        self._forget(child)
        if child.pid is None:  # With a pid, its exit status is still to come.
            self._gone(member, "it ended before it could say who it was", None)

    def _take(self, member: Member, child: Child) -> None:
        now = time.monotonic()
        for message in child.read():
            self._fleet.heard(member, now)
            if "beat" in message:
                child.stats = message["beat"]
                member.wear.requests = child.stats.get("requests", 0)
            elif "failed" in message:
                member.reason = message["failed"]
            elif message["state"] == "starting":
                child.born(message["pid"])
            elif message["state"] == "finished":
                self._fleet.finished(member)
            else:
                self._enter(member, child, message["state"], now)

    def _enter(self, member: Member, child: Child, word: str, now: float) -> None:
        before, since = member.state, member.since
        moves = {"ready": self._fleet.ready, "serving": self._fleet.serving, "stopping": self._fleet.leaving}
        move = moves.get(word)
        if move is None:  # A newer release may say more than this supervisor knows.
            logger.debug("%s says '%s', which means nothing here.", member, word)
        elif move(member, now):
            self._chronicle.entered(member, child.pid, now)
            logger.info("%s (pid %s): %s → %s after %.2f s.", member, child.pid, before, member.state, now - since)

    def _hear_probe(self, member: Member) -> None:
        outcome = self._probes[member].read()
        if outcome is None:
            return
        self.give_up_probe(member)
        before = member.probe.outcome
        self._fleet.probed(member, outcome, time.monotonic())
        self._chronicle.probed(member, outcome)
        if outcome != before:
            logger.info("%s: probe says %s.", member, outcome)

    def _hear_zygote(self, release: Release) -> None:
        zygote = self.zygotes[release]
        message = zygote.read()
        if message is None:
            self._forget(zygote)  # Its death follows, and `reap` tells of that.
        else:
            self._take_zygote(release, message)

    def _take_zygote(self, release: Release, message: Message) -> None:
        if "failed" in message:
            self._lost(release, Failure(message["failed"], message["code"]))
        else:
            try:
                facts = Facts.from_plain(message["loaded"])
            except (KeyError, TypeError, ValueError):
                self._lost(release, Failure(_MISFIT, EXIT_CONFIG))
                return
            logger.info("Release %d is loaded.", release.number)
            self._fleet.loaded(release, facts, time.monotonic())
            if release.changes and not release.finished:
                changes = ", ".join(f"{key} ({reload})" for key, reload in sorted(release.changes.items()))
                logger.info("Release %d changes %s.", release.number, changes)

    # -- how processes die

    def reap(self) -> None:
        """Take every child that has died: members, zygotes, and orphans that the kernel has handed to us."""
        while (dead := _next_dead()) is not None:
            # While it is a zombie its pid is still its own, and what it said last can be believed.
            member = self._member_of(dead)
            _, wait_status = os.waitpid(dead, 0)
            self._reaped(dead, member, *described(wait_status))

    def _reaped(self, pid: int, member: Member | None, how: str, code: int | None) -> None:
        release = next((release for release, zygote in self.zygotes.items() if zygote.pid == pid), None)
        if member is not None:
            self._gone(member, how, code)
        elif release is not None:
            zygote = self.zygotes[release]
            zygote.pid = None
            last_words = zygote.read() or {}
            reason = last_words.get("failed", f"its zygote died: {how}")
            self._lost(release, Failure(reason, last_words.get("code", EXIT_CANNOT_START)))
        elif (on_exit := self._helpers.pop(pid, None)) is not None:
            on_exit(how, code, time.monotonic())
        else:  # A zygote that we ended, somebody's orphan.
            logger.debug("Process %d ended: %s.", pid, how)

    def _member_of(self, pid: int) -> Member | None:
        """Find whose `pid` it was, after its last words: it may have died before we read the first of them."""
        for member, child in self.children.items():
            if child.pid in (None, pid):
                self._take(member, child)
            if child.pid == pid:
                return member
        return None

    def _gone(self, member: Member, how: str, code: int | None) -> None:
        self.give_up_probe(member)
        child = self.children.pop(member)
        self._forget(child)
        child.close()
        level = logging.INFO if member.settled else logging.WARNING
        now = time.monotonic()
        self._chronicle.exited(member, child.pid, how, code, now)
        self._fleet.exited(member, how, code, now)
        logger.log(level, "%s (pid %s) has ended: %s.", member, child.pid, member.reason)

    def _lost(self, release: Release, failure: Failure) -> None:
        logger.warning("The zygote of release %d is lost: %s", release.number, failure.reason)
        self.unload(release)
        self._fleet.zygote_lost(release, failure, time.monotonic())

    def _forget(self, handle: Child | ZygoteProcess | Probe) -> None:
        if handle.fileno() in self._selector.get_map():
            self._selector.unregister(handle)


def _next_dead() -> int | None:
    """Return the pid of a child that has died and is not reaped yet."""
    try:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return dead.si_pid if dead is not None else None
