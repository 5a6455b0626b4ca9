"""`decide`, told as stories: one situation each, with well-behaved children."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from ragagent.config import Probe as Probing
from ragagent.config import Recycle
from ragagent.errors import EXIT_ALL_FAILING, EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor.actions import (
    Abort,
    Action,
    CallOff,
    Drain,
    GiveUp,
    GiveUpProbe,
    Kill,
    Leave,
    Load,
    Probe,
    Rehearse,
    Serve,
    Start,
    Succeed,
    Weigh,
)
from ragagent.supervisor.decide import REHEARSAL_SECONDS
from ragagent.supervisor.facts import NO_PROBES, Facts, Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import FATAL_FAILURES, State
from ragagent.supervisor.release import Failure, Release
from ragagent.supervisor.settle import settle

LIMITS = Limits(ready_seconds=20, hang_seconds=10, graceful_seconds=8)


def facts(workers: int, **keys: str) -> Facts:
    return Facts(workers, LIMITS, "", "", {name.replace("__", "."): (value, "rolls") for name, value in keys.items()})


class Story:
    """A fleet told step by step, with well-behaved children."""

    def __init__(self, workers: int = 2) -> None:
        self.now = 0.0
        self.workers = workers
        self.limits = LIMITS
        self.fleet = Fleet(LIMITS, random.Random(0))
        self.actions: list[Action] = []
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.actions.extend(settle(self.fleet, self.now))

    def wait(self, seconds: float) -> None:
        """Let time pass in which every child beats."""
        self.now += seconds
        for member in self.fleet.members:
            self.fleet.heard(member, self.now)
        self.step()

    def starts(self) -> list[int]:
        return [action.member.slot for action in self.kinds(Start) if isinstance(action, Start)]

    def incoming(self) -> Release:
        assert self.fleet.incoming is not None
        return self.fleet.incoming

    def load(self, **keys: str) -> None:
        self.fleet.loaded(self.incoming(), replace(facts(self.workers, **keys), limits=self.limits), self.now)
        self.step()

    def settle_in(self, *, drains: bool = True) -> None:
        for _ in range(60):
            for member in list(self.fleet.members):
                self.fleet.heard(member, self.now)
                self.fleet.ready(member, self.now)
                self.fleet.serving(member, self.now)
                if member.probe.sent_at is not None:
                    self.fleet.probed(member, "ok", self.now)
                if member.state is State.STOPPING and (drains or member.killed):
                    self.fleet.exited(member, "exit code 0", EXIT_OK, self.now)
            self.step(0.1)

    def boot(self, **keys: str) -> Story:
        self.load(**keys)
        self.settle_in()
        self.actions.clear()
        return self

    def kinds(self, *kinds: type) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kinds)]


def test_first_boot_serves_only_when_every_member_is_ready() -> None:
    story = Story()
    story.load()
    while not story.kinds(Serve):
        assert len(story.kinds(Start)) <= 3
        member = story.fleet.members[-1]
        story.fleet.ready(member, story.now)
        story.step()
    assert [str(a.member) for a in story.kinds(Start) if isinstance(a, Start)] == [
        "worker 0 of release 1",
        "worker 1 of release 1",
        "indexer of release 1",
    ]
    assert len(story.kinds(Serve)) == 3


def test_first_boot_that_fails_leaves_with_the_code_of_its_cause() -> None:
    story = Story()
    story.fleet.zygote_lost(story.incoming(), Failure("Unknown config key", EXIT_CONFIG), 0.0)
    story.step()
    assert story.fleet.left == EXIT_CONFIG
    assert len(story.kinds(Load)) == 1


def test_child_that_calls_its_config_wrong_at_first_boot_is_not_started_again() -> None:
    story = Story()
    story.load()
    story.fleet.exited(story.fleet.members[0], "exit code 1", EXIT_CONFIG, story.now)
    story.step()
    assert story.fleet.left == EXIT_CONFIG
    assert len(story.kinds(Start)) == 1


def test_old_workers_drain_one_after_the_other() -> None:
    story = Story(workers=3).boot()
    story.fleet.ask_reload()
    story.step()
    story.load()
    story.settle_in(drains=False)
    draining = [m for m in story.fleet.members if m.role == "worker" and m.state is State.STOPPING]
    assert len(draining) == 1
    story.fleet.finished(draining[0])  # It has answered all, and only tells its collector.
    story.step()
    assert len([m for m in story.fleet.members if m.role == "worker" and m.state is State.STOPPING]) == 2
    story.settle_in()
    assert story.fleet.reloads.ok == 1


def test_reload_that_fails_touches_nothing_and_the_next_one_works() -> None:
    story = Story().boot()
    before = list(story.fleet.members)
    story.fleet.ask_reload()
    story.step()
    story.load()
    story.fleet.exited(story.fleet.members[-1], "exit code 3", EXIT_CANNOT_START, story.now)
    story.step()
    assert story.fleet.members == before
    assert story.fleet.reloads.failed == 1
    assert "exit code 3" in str(story.fleet.reloads.last_error)
    story.fleet.ask_reload()
    story.step()
    story.load()
    story.settle_in()
    assert story.fleet.current is not None
    assert story.fleet.current.number == 3
    assert story.fleet.reloads.ok == 1


def test_release_that_fails_at_the_switch_gives_the_old_one_its_indexer_back() -> None:
    story = Story().boot()
    story.fleet.ask_reload()
    story.step()
    story.load()
    while not story.incoming().switching:
        for member in story.fleet.of(story.incoming()):
            story.fleet.ready(member, story.now)
        story.step()
    broken = story.fleet.of(story.incoming(), "worker")[0]
    story.fleet.exited(broken, "signal 11", None, story.now)
    story.settle_in()
    current = story.fleet.current
    assert current is not None
    assert current.number == 1
    assert [m.state for m in story.fleet.members] == [State.RUNNING] * 3
    assert {m.release for m in story.fleet.members} == {current}


def test_many_reloads_asked_for_during_one_become_one() -> None:
    story = Story().boot()
    numbers = [story.fleet.ask_reload()]
    story.step()
    numbers += [story.fleet.ask_reload() for _ in range(20)]
    for _ in range(3):
        if story.fleet.incoming is not None:
            story.load()
        story.settle_in()
    assert numbers == [2] + [3] * 20
    assert story.fleet.reloads.ok == 2


def test_reload_refuses_a_key_that_needs_a_restart() -> None:
    story = Story()
    bound = {"server.bind": ("old", "restart")}
    story.fleet.loaded(story.incoming(), Facts(2, LIMITS, "", "", bound), story.now)
    story.settle_in()
    story.fleet.ask_reload()
    story.step()
    story.fleet.loaded(story.incoming(), Facts(2, LIMITS, "", "", {"server.bind": ("new", "restart")}), story.now)
    story.step()
    assert story.fleet.reloads.failed == 1
    assert "server.bind changed" in str(story.fleet.reloads.last_error)


def test_reload_names_the_keys_that_changed() -> None:
    story = Story().boot(cache__enabled="true", redis__url="a")
    story.fleet.ask_reload()
    story.step()
    story.load(cache__enabled="false", redis__url="a")
    assert story.incoming().changes == {"cache.enabled": "rolls"}


def test_worker_that_lives_for_0_3_s_is_started_at_most_8_times_in_8_s() -> None:
    story = Story(workers=1).boot()
    begun = story.now
    while story.now - begun < 8:
        for member in story.fleet.members:
            story.fleet.heard(member, story.now)
        for member in list(story.fleet.members):
            story.fleet.ready(member, story.now)
            story.fleet.serving(member, story.now)
            young = member.running_at is not None and story.now - member.running_at >= 0.3
            if member.role == "worker" and young:
                story.fleet.exited(member, "signal 11", None, story.now)
        story.step(0.05)
    assert 4 <= len(story.kinds(Start)) <= 8


def test_one_crash_of_a_grown_up_costs_no_time() -> None:
    story = Story().boot()
    story.settle_in()
    story.settle_in()
    victim = story.fleet.members[0]
    assert story.now - (victim.running_at or 0) > 10
    story.fleet.exited(victim, "signal 9", None, story.now)
    story.step()
    assert [a.member.slot for a in story.kinds(Start) if isinstance(a, Start)] == [victim.slot]


def test_silent_event_loop_is_aborted_then_killed_and_replaced() -> None:
    story = Story().boot()
    hung = story.fleet.members[0]
    for _ in range(21):
        for member in story.fleet.members[1:]:
            story.fleet.heard(member, story.now)
        story.step(0.5)
    assert [a.member for a in story.kinds(Abort) if isinstance(a, Abort)] == [hung]
    story.step(1.0)
    assert hung in [a.member for a in story.kinds(Kill) if isinstance(a, Kill)]
    assert hung.key in [a.member.key for a in story.kinds(Start) if isinstance(a, Start)]


def test_release_that_is_not_ready_in_time_is_given_up() -> None:
    story = Story().boot()
    story.fleet.ask_reload()
    story.step()
    story.load()
    for _ in range(int(LIMITS.ready_seconds) + 1):
        for member in story.fleet.of(story.fleet.current):
            story.fleet.heard(member, story.now)
        story.step(1.0)
    assert story.fleet.incoming is None
    assert "was not ready within 20 s" in str(story.fleet.reloads.last_error)
    assert len(story.kinds(Start)) == 1


def test_slow_boot_is_no_hang() -> None:
    story = Story()
    story.load()
    story.step(LIMITS.hang_seconds + 5)
    assert not story.kinds(Abort, Kill)


def test_stop_drains_workers_before_the_indexer() -> None:
    story = Story().boot()
    story.fleet.ask_stop(story.now)
    story.step()
    assert [str(a.member) for a in story.kinds(Drain) if isinstance(a, Drain)] == [
        "worker 0 of release 1",
        "worker 1 of release 1",
    ]
    story.settle_in()
    assert isinstance(story.actions[-1], Leave)
    assert story.fleet.left == EXIT_OK


def test_second_stop_kills_at_once() -> None:
    story = Story().boot()
    story.fleet.ask_stop(story.now)
    story.step()
    story.fleet.ask_stop(story.now)
    story.step()
    assert len(story.kinds(Kill)) == 3


def test_workers_that_never_live_end_it_with_a_code_of_their_own() -> None:
    story = Story(workers=1).boot()
    deaths = 0
    while story.fleet.stop is None:
        for member in story.fleet.of(story.fleet.current, "worker"):
            story.fleet.exited(member, "signal 11", None, story.now)
            deaths += 1
        story.step()
        story.now += 40
        for member in story.fleet.members:
            story.fleet.heard(member, story.now)
        story.step()
    assert deaths == FATAL_FAILURES
    assert "signal 11" in story.kinds(GiveUp)[0].reason  # type: ignore[union-attr]
    story.settle_in()
    assert story.fleet.left == EXIT_ALL_FAILING


def test_a_reload_under_way_may_yet_mend_workers_that_never_live() -> None:
    story = Story(workers=1).boot()
    story.fleet.slot(("worker", 0)).failures = FATAL_FAILURES
    story.fleet.exited(story.fleet.of(story.fleet.current, "worker")[0], "signal 11", None, story.now)
    story.fleet.ask_reload()
    story.step()
    assert story.fleet.stop is None
    story.load()
    story.settle_in()
    assert story.fleet.reloads.ok == 1


def test_stop_while_every_worker_fails_is_no_success() -> None:
    story = Story(workers=1).boot()
    for member in story.fleet.of(story.fleet.current, "worker"):
        story.fleet.exited(member, "signal 11", None, story.now)
    story.fleet.ask_stop(story.now)
    story.settle_in()
    assert story.fleet.left == EXIT_ALL_FAILING


# -- recycling and probes


def recycling(probe: Probing = NO_PROBES, **limits: Any) -> Story:
    story = Story()
    story.limits = replace(LIMITS, probe=probe, recycle=Recycle(**{"jitter": 0, "spacing_seconds": 1, **limits}))
    return story.boot()


def test_worn_worker_is_replaced_before_it_leaves_and_one_at_a_time() -> None:
    story = recycling(requests=100)
    old = story.fleet.of(story.fleet.current, "worker")
    for member in old:
        member.wear.requests = 100
    story.wait(5)
    assert story.starts() == [0]
    assert not story.kinds(Drain)
    story.settle_in()
    drained = [a for a in story.kinds(Drain) if isinstance(a, Drain)]
    assert [a.member for a in drained] == old
    assert drained[0].reason == "it has answered 100 requests"
    assert [m.state for m in story.fleet.members] == [State.RUNNING] * 3
    assert story.fleet.slot(("worker", 0)).restarts == 0


def test_recycling_is_spaced_unless_it_is_asked_for() -> None:
    story = recycling(lifetime_seconds=12, spacing_seconds=1000)
    story.wait(8)
    story.settle_in()
    assert story.starts() == [0]
    story.fleet.ask_recycle(None)
    story.settle_in()
    assert sorted(story.starts()) == [0, 0, 1]


def test_successor_that_does_not_live_leaves_the_old_one_serving() -> None:
    story = recycling(lifetime_seconds=12)
    old = story.fleet.of(story.fleet.current, "worker")
    story.wait(8)
    (start,) = story.kinds(Start)
    assert isinstance(start, Start)
    story.fleet.exited(start.member, "signal 11", None, story.now)
    story.step()
    assert not story.kinds(Drain)
    assert [m.state for m in old] == [State.RUNNING] * 2


def test_large_worker_is_recycled_only_when_it_stays_large() -> None:
    story = recycling(pss_bytes=100)
    story.wait(5)
    for size in (200, 200, 50, 200, 200):
        for action in story.kinds(Weigh):
            assert isinstance(action, Weigh)
            story.fleet.weighed(action.member, size, story.now)
        story.actions.clear()
        story.wait(5)
        assert not story.kinds(Start)
    for action in story.kinds(Weigh):
        assert isinstance(action, Weigh)
        story.fleet.weighed(action.member, 200, story.now)
    story.step()
    assert story.kinds(Start)


def test_sick_worker_is_replaced_while_another_is_well_and_never_all_at_once() -> None:
    story = recycling(probe=Probing(interval_seconds=1, timeout_seconds=2, failures=3), spacing_seconds=0)
    sick, well = story.fleet.of(story.fleet.current, "worker")
    for _ in range(3):
        story.fleet.probed(sick, "not_ready", story.now)
        story.fleet.probed(well, "not_ready", story.now)
    story.step()
    assert not story.kinds(Start), "what all of them fail at is not one worker's fault"
    story.fleet.probed(well, "ok", story.now)
    story.step()
    assert story.starts() == [sick.slot]
    story.settle_in()
    (drain,) = story.kinds(Drain)
    assert drain == Drain(sick, "it was not ready at 3 probes in a row")


def test_probe_without_an_answer_is_given_up_and_asked_again() -> None:
    story = recycling(probe=Probing(interval_seconds=1, timeout_seconds=2, failures=3))
    story.wait(1)
    assert len(story.kinds(Probe)) == 2
    story.wait(1.9)
    assert not story.kinds(GiveUpProbe)
    story.wait(0.1)
    assert len(story.kinds(GiveUpProbe)) == 2
    story.wait(1)
    assert len(story.kinds(Probe)) == 4
    assert [m.probe.failures for m in story.fleet.of(story.fleet.current, "worker")] == [1, 1]


# -- the supervisor's own code


def test_upgrade_waits_for_the_reload_in_the_making_and_goes_before_the_next() -> None:
    story = Story().boot()
    story.fleet.ask_reload()
    story.step()
    story.fleet.ask_upgrade()
    story.fleet.ask_reload()
    story.step()
    assert not story.kinds(Rehearse)
    story.load()
    story.settle_in()
    assert len(story.kinds(Rehearse)) == 1
    assert story.fleet.incoming is None
    story.fleet.rehearsed(None)
    story.step()
    assert len(story.kinds(Succeed)) == 1


def test_upgrade_whose_rehearsal_fails_or_never_ends_is_called_off() -> None:
    for failure in ("exit code 1", None):
        story = Story().boot()
        story.fleet.ask_upgrade()
        story.step()
        if failure is not None:
            story.fleet.rehearsed(failure)
        for _ in range(8):
            story.wait(REHEARSAL_SECONDS / 7)
        (off,) = story.kinds(CallOff)
        assert isinstance(off, CallOff)
        assert (failure or "did not end within 30 s") in off.reason
        assert not story.kinds(Succeed)
        assert not story.fleet.upgrade.wanted
