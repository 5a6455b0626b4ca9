"""`decide`, `settle` and `fleet` against thousands of random histories: what must hold however children behave."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ragagent.config import Probe as Probing
from ragagent.config import Recycle
from ragagent.errors import EXIT_ALL_FAILING, EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor.actions import Abandon, Action, Drain, Finish, Kill, Promote, Start, Succeed, Weigh
from ragagent.supervisor.facts import Facts, Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, Outcome, State
from ragagent.supervisor.release import Failure, Zygote
from ragagent.supervisor.settle import settle

WORKERS = 3
LIMITS = Limits(
    ready_seconds=20,
    hang_seconds=10,
    graceful_seconds=8,
    probe=Probing(interval_seconds=0.3, timeout_seconds=1.0, failures=2),
    recycle=Recycle(requests=100, pss_bytes=1000, lifetime_seconds=60.0, spacing_seconds=1.0),
)
FACTS = Facts(WORKERS, LIMITS, "", "", {})


class World(RuleBasedStateMachine):
    """A fleet whose children are dice. Time only passes by `wait`; what is killed dies at the next `wait`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.fleet = Fleet(LIMITS, random.Random(0))
        self.hung: set[Member] = set()
        self.disturbed = False  # a worker that served was lost to a fault, so fewer may serve for a while
        self.step()

    # -- what the children and the operator do

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for member in list(self.fleet.members):
            if member.killed:
                self.fleet.exited(member, "signal 9", None, self.now)
            elif member not in self.hung:
                self.fleet.heard(member, self.now)
        self.step()

    @rule(ok=st.sampled_from([True, True, True, False]))
    def zygote_reports(self, ok: bool) -> None:
        for release in (self.fleet.incoming, self.fleet.current):
            if release is not None and release.zygote is Zygote.LOADING:
                if ok:
                    self.fleet.loaded(release, FACTS, self.now)
                else:
                    self.fleet.zygote_lost(release, Failure("SyntaxError"), self.now)
                break
        self.step()

    @rule(times=st.integers(1, 8))
    def children_go_on(self, times: int) -> None:
        for _ in range(times):
            for member in list(self.fleet.members):
                if member.state is State.STARTING:
                    self.fleet.ready(member, self.now)
                elif member.state is State.READY and member.told_at is not None:
                    self.fleet.serving(member, self.now)
            self.step()

    @rule(data=st.data())
    def one_child_goes_on(self, data: st.DataObject) -> None:
        if self.fleet.members:
            member = data.draw(st.sampled_from(self.fleet.members))
            self.fleet.ready(member, self.now)
            self.fleet.serving(member, self.now)
        self.step()

    @rule(data=st.data())
    def one_has_drained(self, data: st.DataObject) -> None:
        draining = [m for m in self.fleet.members if m.state is State.STOPPING]
        if draining:
            self.fleet.exited(data.draw(st.sampled_from(draining)), "exit code 0", EXIT_OK, self.now)
        self.step()

    @rule(data=st.data(), code=st.sampled_from([None, EXIT_CONFIG, EXIT_CANNOT_START, EXIT_OK]))
    def one_crashes(self, data: st.DataObject, code: int | None) -> None:
        if self.fleet.members:
            member = data.draw(st.sampled_from(self.fleet.members))
            self.disturbed |= member.state is State.RUNNING
            self.fleet.exited(member, "crashed", code, self.now)
        self.step()

    @rule(data=st.data())
    def one_hangs(self, data: st.DataObject) -> None:
        if self.fleet.members:
            member = data.draw(st.sampled_from(self.fleet.members))
            self.disturbed |= member.state is not State.STARTING
            self.hung.add(member)

    @rule(data=st.data())
    def one_leaves_by_itself(self, data: st.DataObject) -> None:
        if self.fleet.members:
            member = data.draw(st.sampled_from(self.fleet.members))
            self.disturbed |= member.state is State.RUNNING
            self.fleet.leaving(member, self.now)
        self.step()

    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "not_ready"]))
    def a_probe_is_answered(self, data: st.DataObject, outcome: Outcome) -> None:
        asked = [m for m in self.fleet.members if m.probe.sent_at is not None and m.state is State.RUNNING]
        if asked:
            self.fleet.probed(data.draw(st.sampled_from(asked)), outcome, self.now)
        self.step()

    @rule(data=st.data(), requests=st.integers(0, 150))
    def one_has_worked(self, data: st.DataObject, requests: int) -> None:
        if self.fleet.members:
            data.draw(st.sampled_from(self.fleet.members)).wear.requests += requests
        self.step()

    @rule(slot=st.sampled_from([None, 0, 1, 2]))
    def recycle(self, slot: int | None) -> None:
        self.fleet.ask_recycle(slot)
        self.step()

    @rule()
    def zygote_dies(self) -> None:
        for release in (self.fleet.incoming, self.fleet.current):
            if release is not None and release.zygote is not Zygote.LOST:
                self.fleet.zygote_lost(release, Failure("signal 9"), self.now)
                break
        self.step()

    @rule()
    def hup(self) -> None:
        self.fleet.ask_reload()
        self.step()

    @rule()
    def usr2(self) -> None:
        self.fleet.ask_upgrade()
        self.step()

    @rule(ok=st.booleans())
    def the_rehearsal_ends(self, ok: bool) -> None:
        if self.fleet.upgrade.rehearsed_since is not None:
            self.fleet.rehearsed(None if ok else "exit code 1")
        self.step()

    @rule(step=st.sampled_from([-1, 1]))
    @precondition(lambda self: self.fleet.current is not None)
    def scale(self, step: int) -> None:
        assert self.fleet.current is not None
        self.fleet.ask_workers(self.fleet.current.workers + step)
        self.disturbed = True
        self.step()

    # -- what must hold at each step

    def step(self) -> None:
        for count, action in enumerate(settle(self.fleet, self.now)):
            assert count < 200, "settle does not come to rest"
            self.check(action)
            if isinstance(action, Weigh):
                self.fleet.weighed(action.member, 900 + 50 * (count % 5), self.now)

    def check(self, action: Action) -> None:
        match action:
            case Drain(member) if member.role == "worker" and self.fleet.stop is None:
                surplus = self.fleet.current is not None and member.slot >= self.fleet.current.workers
                replaced = any(m.key == member.key and m.state is State.RUNNING for m in self.peers(member))
                assert member.release is not self.fleet.current or surplus or replaced, "a good worker was retired"
            case Kill(member) if member.told_at is not None and self.fleet.stop is None:
                assert member.aborted_at is not None or member.settled, "a worker that served was killed undrained"
            case Promote(release):
                workers = self.fleet.of(release, "worker")
                assert [m.state for m in workers] == [State.RUNNING] * release.workers
            case Abandon(release):
                assert release is not self.fleet.current
            case Succeed():
                assert self.fleet.incoming is None, "a reload in the making would be lost"
            case Finish(release):
                assert {m.release for m in self.fleet.members} <= {release}
            case Start(member):
                twins = [m for m in self.peers(member) if m.key == member.key and m.fills]
                assert [m.state for m in twins] in ([], [State.RUNNING]), "one slot was filled twice"
                assert not twins or member.role == "worker", "two indexers were started"

    @invariant()
    def a_reload_never_lowers_the_number_that_serve(self) -> None:
        if self.fleet.current is None or self.fleet.stop is not None or self.disturbed:
            return
        serving = {(m.release, m.slot) for m in self.fleet.members if m.role == "worker" and m.state is State.RUNNING}
        assert len(serving) >= WORKERS

    def peers(self, member: Member) -> list[Member]:
        return [peer for peer in self.fleet.of(member.release) if peer is not member]

    @invariant()
    def at_most_one_worker_is_recycled_at_a_time(self) -> None:
        keys = [m.key for m in self.fleet.of(self.fleet.current, "worker") if m.fills]
        assert len(keys) - len(set(keys)) <= 1

    @invariant()
    def at_most_one_indexer_is_told_to_serve(self) -> None:
        told = [m for m in self.fleet.members if m.role == "indexer" and m.fills and m.told_at is not None]
        assert len(told) <= 1

    @invariant()
    def a_release_in_the_making_starts_one_at_a_time(self) -> None:
        incoming = self.fleet.incoming
        assert incoming is None or sum(m.state is State.STARTING for m in self.fleet.of(incoming)) <= 1

    @invariant()
    def at_most_two_releases_are_alive(self) -> None:
        assert len({m.release for m in self.fleet.members}) <= 2

    @invariant()
    def only_a_failed_first_boot_or_hopeless_workers_end_it_unasked(self) -> None:
        stop = self.fleet.stop
        if stop is None:
            return
        if self.fleet.current is None:
            assert stop.code in (EXIT_CONFIG, EXIT_CANNOT_START)
        else:
            assert stop.code == EXIT_ALL_FAILING
            assert not any(m.role == "worker" and m.state is State.RUNNING for m in self.fleet.members)

    def teardown(self) -> None:
        """After SIGTERM everything ends, though no child leaves by itself."""
        self.fleet.ask_stop(self.now)
        for _ in range(60):
            self.wait(0.5)
        assert self.fleet.left is not None
        assert not self.fleet.members


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
