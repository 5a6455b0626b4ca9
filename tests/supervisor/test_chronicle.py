"""What the chronicle makes of histories: a scripted fleet with its own clock, and whole trees that a collector sees."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from otlp_collector import Collector, otlp_collector
from ragagent.errors import EXIT_CONFIG
from ragagent.supervisor.actions import GiveUpProbe, Kill
from ragagent.supervisor.chronicle import Chronicle
from ragagent.supervisor.facts import Facts, Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import Failure, Release, Role, Zygote
from ragagent.supervisor.reporter import Reporter
from ragagent.supervisor.settle import settle

if TYPE_CHECKING:
    from supervisor.conftest import Tree

DEADLINE_SECONDS = 20.0
LIMITS = Limits(ready_seconds=20, hang_seconds=10, graceful_seconds=8)
PHASES = ["ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch", "ragagent.reload.drain"]
REASON = "ragagent.worker.exit.reason"


class Heard(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[Mapping[str, Any]] = []
        self.endpoints: list[str] = []

    def point_at(self, endpoint: str, service_name: str) -> None:
        self.endpoints.append(endpoint)

    def send(self, message: Mapping[str, Any]) -> None:
        self.messages.append(message)

    def tend(self, now: float) -> None:
        pass


class Story:
    """A fleet that is told of what children do, as the crew would tell it, and a chronicle that listens."""

    def __init__(self, workers: int = 2) -> None:
        self.now = 100.0
        self.workers = workers
        self.fleet = Fleet(LIMITS, random.Random(0))
        self.exits = 0
        self.silent: set[Member] = set()  # They do not beat.
        self.heard = Heard()
        self.chronicle = Chronicle(self.fleet, self.heard)

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for member in self.fleet.members:
            if member not in self.silent:
                self.fleet.heard(member, self.now)
        for action in settle(self.fleet, self.now):
            self.chronicle.took(action, self.now)
            if isinstance(action, Kill):
                self.exit(action.member, "signal 9, SIGKILL", None)

    def load(self, endpoint: str = "http://a") -> Release:
        """Load the release in the making."""
        self.step()
        release = self.fleet.incoming
        assert release is not None
        self.now += 1.0
        self.fleet.loaded(release, Facts(self.workers, LIMITS, endpoint, "mine", {}), self.now)
        self.step()
        return release

    def build(self) -> Release:
        """Bring it to where it serves: each of its members takes a second."""
        release = self.load()
        while release is self.fleet.incoming:
            waiting = [m for m in self.fleet.of(release) if m.state in (State.STARTING, State.READY)]
            self.now += 1.0
            for member in waiting:
                self.enter(member, State.READY if member.state is State.STARTING else State.RUNNING)
            self.step()
        for member in self.fleet.of(release, "indexer"):
            self.enter(member, State.RUNNING)
        return release

    def reload(self) -> Release:
        self.chronicle.asked(self.now)
        self.fleet.ask_reload()
        return self.build()

    def see_out(self) -> None:
        """Let all that was told to finish do so, half a second each."""
        while leaving := [m for m in self.fleet.members if m.state is State.STOPPING]:
            self.now += 0.5
            for member in leaving:
                self.exit(member, "exit code 0", 0)
            self.step()

    def enter(self, member: Member, state: State) -> None:
        moves = {State.READY: self.fleet.ready, State.RUNNING: self.fleet.serving, State.STOPPING: self.fleet.leaving}
        if moves[state](member, self.now):
            self.chronicle.entered(member, 1000 + member.slot, self.now)

    def exit(self, member: Member, how: str, code: int | None) -> None:
        self.exits += 1
        self.chronicle.exited(member, 1000 + member.slot, how, code, self.now)
        self.fleet.exited(member, how, code, self.now)

    def member(self, role: Role = "worker", slot: int = 0) -> Member:
        return next(m for m in self.fleet.of(self.fleet.current, role) if m.slot == slot and m.fills)

    def traces(self, name: str) -> list[dict[str, Any]]:
        return [message["trace"] for message in self.heard.messages if message.get("trace", {}).get("name") == name]

    def totals(self, metric: str, role: str = "worker") -> dict[str, Any]:
        """What a metric counts, by its last attribute, zeros left out."""
        self.heard.messages.clear()
        self.now += 60.0
        self.chronicle.turn({}, self.now)
        (measured,) = (message["metrics"] for message in self.heard.messages)
        found = [(attributes, value) for name, attributes, value in measured["points"] if name == metric]
        mine = [(a, value) for a, value in found if a.get("ragagent.process.role", role) == role and value]
        return {next((v for k, v in a.items() if k != "ragagent.process.role"), ""): value for a, value in mine}


@pytest.fixture
def story() -> Story:
    story = Story()
    story.build()
    story.step()
    return story


def test_boot_is_no_reload_and_names_the_collector(story: Story) -> None:
    assert story.heard.endpoints == ["http://a"]
    assert story.heard.messages == []
    assert story.totals("ragagent.reloads") == {}
    assert story.totals("ragagent.worker.target") == {"": 2}
    assert story.totals("ragagent.worker.spawn.duration")[""]["sum"] == 2.0


def test_reload_is_one_trace_from_the_asking_to_the_last_exit(story: Story) -> None:
    asked = story.now
    release = story.reload()
    story.see_out()
    (trace,) = story.traces("ragagent.reload")
    assert [phase["name"] for phase in trace["spans"]] == PHASES
    _, ready, _, drain = trace["spans"]
    assert [_slot(span) for span in ready["spans"]] == [("worker", 0), ("worker", 1), ("indexer", 0)]
    assert [span["end"] - span["start"] for span in ready["spans"]] == [1_000_000_000] * 3
    assert sorted(map(_slot, drain["spans"])) == [("indexer", 0), ("worker", 0), ("worker", 1)]
    assert {span["attributes"][REASON] for span in drain["spans"]} == {"drain"}
    assert {span["attributes"]["ragagent.release"] for span in drain["spans"]} == {1}
    assert trace["end"] - trace["start"] == round((release.marks["finished"] - asked) * 1e9)
    assert story.totals("ragagent.reloads") == {"ok": 1}
    assert story.totals("ragagent.worker.exits") == {"drain": 2}
    assert story.totals("ragagent.worker.exits", "indexer") == {"drain": 1}
    assert story.totals("ragagent.worker.drain.duration")["drain"]["counts"][3] == 2
    assert story.totals("ragagent.worker.restarts") == {}


def _slot(span: Mapping[str, Any]) -> tuple[str, int]:
    return span["attributes"]["ragagent.process.role"], span["attributes"]["ragagent.worker.slot"]


def test_reload_that_has_to_wait_begins_when_it_was_first_asked_for(story: Story) -> None:
    story.reload()
    asked = story.now
    story.chronicle.asked(asked)
    story.fleet.ask_reload()
    story.chronicle.asked(asked + 0.1)
    story.see_out()
    story.build()
    story.see_out()
    first, second = story.traces("ragagent.reload")
    assert first["spans"][0]["start"] == first["start"]
    waited = second["spans"][0]["start"] - second["start"]  # for the old release to drain, and then to load at once
    assert waited == pytest.approx(1_000_000_000, abs=10)


def test_reload_that_fails_is_told_at_once_and_says_by_which_child(story: Story) -> None:
    story.fleet.ask_reload()
    release = story.load()
    story.now += 0.5
    (worker,) = story.fleet.of(release)
    worker.reason = "api_key 'sk-secret' is refused"
    story.exit(worker, "exit code 1", EXIT_CONFIG)
    story.step()
    (trace,) = story.traces("ragagent.reload")
    assert trace["attributes"]["ragagent.reload.outcome"] == "invalid_config"
    (failed,) = trace["spans"][1]["spans"]
    assert (failed["is_error"], failed["attributes"][REASON]) == (True, "crash")
    assert "sk-secret" not in repr(story.heard.messages)
    assert story.totals("ragagent.reloads") == {"invalid_config": 1}
    assert story.totals("ragagent.worker.restarts") == {}


def test_members_of_a_failed_reload_are_dismissed_and_the_next_one_is_clean(story: Story) -> None:
    story.fleet.ask_reload()
    release = story.load()
    story.enter(story.fleet.of(release)[0], State.READY)
    story.fleet.fail(release, Failure("it cannot be"))
    story.step()
    story.step()
    story.reload()
    story.see_out()
    failed, good = story.traces("ragagent.reload")
    assert len(failed["spans"][1]["spans"]) == 1
    assert len(good["spans"][1]["spans"]) == 3
    assert story.totals("ragagent.worker.exits") == {"dismissed": 1, "drain": 2}
    assert story.totals("ragagent.reloads") == {"not_ready": 1, "ok": 1}


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [("exit code 9", 9, "crash"), ("signal 11, SIGSEGV", None, "signal"), ("exit code 0", 0, "left")],
)
def test_crash_is_one_trace_from_the_loss_to_the_successor(
    story: Story, how: str, code: int | None, reason: str
) -> None:
    story.exit(story.member(), how, code)
    story.step(0.1)
    successor = story.member()
    story.now += 0.2
    story.enter(successor, State.READY)
    assert story.traces("ragagent.worker.lifecycle") == []
    story.step()
    story.now += 0.1
    story.enter(successor, State.RUNNING)
    (trace,) = story.traces("ragagent.worker.lifecycle")
    assert trace["attributes"][REASON] == trace["attributes"]["error.type"] == reason
    assert trace["end"] - trace["start"] == pytest.approx(400_000_000, abs=10)
    (spawn,) = trace["spans"]
    assert spawn["end"] - spawn["start"] == pytest.approx(200_000_000, abs=10)
    assert not spawn["is_error"]
    assert story.totals("ragagent.worker.exits") == {reason: 1}
    assert story.totals("ragagent.worker.restarts") == {reason: 1}


def test_successor_that_dies_young_ends_one_trace_and_begins_the_next(story: Story) -> None:
    story.exit(story.member(), "signal 9, SIGKILL", None)
    story.step(0.1)
    story.exit(story.member(), "exit code 1", 1)
    story.step(60.0)
    story.enter(story.member(), State.READY)
    story.step()
    story.enter(story.member(), State.RUNNING)
    first, second = story.traces("ragagent.worker.lifecycle")
    assert first["spans"][0]["attributes"]["error.type"] == second["attributes"][REASON] == "crash"
    assert not second["spans"][0]["is_error"]
    assert story.totals("ragagent.worker.restarts") == {"signal": 1, "crash": 1}


def test_loss_that_a_reload_makes_good_waits_for_nobody(story: Story) -> None:
    victim = story.member()
    story.fleet.ask_reload()
    release = story.load()
    while release is story.fleet.incoming:
        for member in story.fleet.of(release):
            story.enter(member, State.READY if member.state is State.STARTING else State.RUNNING)
        if len([m for m in story.fleet.of(release, "worker") if m.state is State.RUNNING]) == 2:
            story.exit(victim, "exit code 9", 9)
        story.step()
    assert story.chronicle._lost == {}
    assert story.totals("ragagent.worker.exits") == {"crash": 1}
    assert story.totals("ragagent.worker.restarts") == {}


def test_hang_is_a_loss_from_the_moment_that_it_is_seen(story: Story) -> None:
    victim = story.member()
    story.silent.add(victim)
    story.step(LIMITS.hang_seconds + 1)
    successor = story.member()
    assert successor is not victim  # Its slot is filled again while it still dumps its stacks.
    story.now += 0.5
    story.exit(victim, "signal 6, SIGABRT", None)
    story.enter(successor, State.READY)
    story.step()
    story.enter(successor, State.RUNNING)
    (trace,) = story.traces("ragagent.worker.lifecycle")
    assert trace["attributes"][REASON] == "hang"
    assert story.totals("ragagent.worker.exits") == {"hang": 1}
    assert story.totals("ragagent.worker.restarts") == {"hang": 1}


def test_member_that_leaves_by_itself_is_lost_when_it_says_so(story: Story) -> None:
    worker = story.member()
    story.enter(worker, State.STOPPING)
    story.step()
    assert story.totals("ragagent.worker.restarts") == {"left": 1}
    story.exit(worker, "exit code 0", 0)
    assert story.totals("ragagent.worker.exits") == {"left": 1}
    assert story.totals("ragagent.worker.restarts") == {"left": 1}


def test_scaling_away_is_no_loss(story: Story) -> None:
    story.fleet.ask_workers(1)
    story.step()
    story.see_out()
    story.fleet.ask_workers(2)
    story.step()
    assert story.totals("ragagent.worker.exits") == {"drain": 1}
    assert story.totals("ragagent.worker.restarts") == {}
    assert story.totals("ragagent.worker.target") == {"": 2}


def test_recycling_is_a_reason_of_its_own_and_no_loss(story: Story) -> None:
    worker, successor = recycling(story)
    for state in (State.READY, State.RUNNING):
        story.enter(successor, state)
        story.step()
    story.see_out()
    assert worker not in story.fleet.members
    assert story.traces("ragagent.worker.lifecycle") == []
    assert story.totals("ragagent.worker.exits") == {"recycle": 1}
    assert story.totals("ragagent.worker.restarts") == {}


def test_successor_in_a_recycling_that_dies_takes_nothing_away(story: Story) -> None:
    _, successor = recycling(story)
    story.exit(successor, "exit code 9", 9)
    story.step(1.0)
    story.enter(story.fleet.members[-1], State.READY)
    story.step()
    story.enter(story.fleet.members[-1], State.RUNNING)
    assert story.traces("ragagent.worker.lifecycle") == []
    assert story.totals("ragagent.worker.exits") == {"crash": 1}
    assert story.totals("ragagent.worker.restarts") == {}


def recycling(story: Story) -> tuple[Member, Member]:
    """Begin one, and return who goes and who comes."""
    worker = story.member(slot=1)
    story.fleet.ask_recycle(1)
    story.step()
    return worker, story.fleet.members[-1]


def test_drain_beyond_its_budget_is_a_kill(story: Story) -> None:
    story.fleet.ask_workers(1)
    story.step()
    story.step(LIMITS.graceful_seconds + 3)
    assert story.totals("ragagent.worker.exits")["killed"] == 1
    assert story.totals("ragagent.worker.drain.duration")["killed"]["counts"][8] == 1


def test_stop_that_cuts_a_reload_short_is_its_outcome(story: Story) -> None:
    story.reload()
    story.fleet.ask_stop(story.now)
    story.step()
    story.see_out()
    (trace,) = story.traces("ragagent.reload")
    assert (trace["attributes"]["ragagent.reload.outcome"], trace["is_error"]) == ("stopped", False)
    assert story.totals("ragagent.reloads") == {"stopped": 1}
    assert story.totals("ragagent.worker.restarts") == {}


def test_probes_are_counted(story: Story) -> None:
    story.chronicle.probed(story.member(), "ok")
    story.chronicle.probed(story.member(), "not_ready")
    story.chronicle.took(GiveUpProbe(story.member()), story.now)
    assert story.totals("ragagent.probe.results") == {"ok": 1, "not_ready": 1, "no_answer": 1}


def test_nothing_is_remembered_of_what_is_over(story: Story) -> None:
    for _ in range(3):
        story.reload()
        story.exit(story.member(), "exit code 9", 9)
        story.see_out()
        story.step(1.0)
        story.enter(story.member(), State.READY)
        story.step()
    assert set(story.chronicle._lives) == set(story.fleet.members)
    assert story.chronicle._lost == {}


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_every_exit_is_counted_once(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice, story = random.Random(seed), Story(workers=3)
    story.build()
    for _ in range(300):
        member = dice.choice([*story.fleet.members, None])
        if member is None or dice.random() < 0.3:
            story.step(dice.choice([0.1, 1.0, 12.0]))
        elif dice.random() < 0.7:
            story.enter(member, dice.choice([State.READY, State.RUNNING, State.READY, State.RUNNING, State.STOPPING]))
        else:
            story.exit(member, *dice.choice([("exit code 0", 0), ("exit code 9", 9), ("signal 9, SIGKILL", None)]))
        _disturb(story, dice)
        story.chronicle.turn({}, story.now)
        lives = story.chronicle._lives
        assert story.chronicle._reload is not None or set(lives) == set(story.fleet.members)
        lost = story.chronicle._lost
        assert set(lost) <= set(story.fleet.current.slots() if story.fleet.current else ())
        assert {life.member.release for life in lost.values()} <= {story.fleet.current}
    counted = sum(sum(story.totals("ragagent.worker.exits", role).values()) for role in ("worker", "indexer"))
    assert counted == story.exits
    assert "telemetry failed" not in caplog.text


def _disturb(story: Story, dice: random.Random) -> None:
    incoming = story.fleet.incoming
    if dice.random() < 0.03:
        story.chronicle.asked(story.now)
        story.fleet.ask_reload()
    if dice.random() < 0.03:
        story.fleet.ask_workers(dice.randint(1, 4))
    if dice.random() < 0.03:
        story.fleet.ask_recycle(None)
    if incoming is not None and incoming.zygote is Zygote.LOADING:
        if dice.random() < 0.7:
            story.fleet.loaded(incoming, Facts(3, LIMITS, "http://a", "mine", {}), story.now)
        else:
            story.fleet.zygote_lost(incoming, Failure("it broke"), story.now)


def test_fault_of_telemetry_stays_its_own(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    story.chronicle.probed(story.member(), ["unhashable"])  # type: ignore[arg-type]
    assert "The supervisor's telemetry failed; the supervisor goes on." in caplog.text


# -- whole trees


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


def point(tree: Tree, collector: Collector, **server: Any) -> None:
    tree.configure(extra=f'[telemetry]\nendpoint = "{collector.endpoint}"\nmetrics_seconds = 0.3', **server)


def test_reload_of_a_tree_arrives_complete(tree: Tree, collector: Collector) -> None:
    point(tree, collector)
    tree.start()
    old = {*tree.pids(), *tree.pids("indexer")}
    assert tree.reload()["ok"] is True
    new = {*tree.pids(), *tree.pids("indexer")}
    collector.wait_for("ragagent.reload", DEADLINE_SECONDS)
    (root,) = collector.named("ragagent.reload")
    assert root.parent_id == ""
    phases = [span for span in collector.spans if span.parent_id == root.span_id]
    assert [span.name for span in sorted(phases, key=lambda span: span.start_ns)] == PHASES
    _, ready, _, drain = sorted(phases, key=lambda span: span.start_ns)
    spawned, drained = collector.named("ragagent.worker.spawn"), collector.named("ragagent.worker.drain")
    assert {span.parent_id for span in spawned} == {ready.span_id}
    assert {span.attributes["process.pid"] for span in spawned} == new
    assert {span.parent_id for span in drained} == {drain.span_id}
    assert {span.attributes["process.pid"] for span in drained} == old
    assert {span.attributes[REASON] for span in drained} == {"drain"}
    assert all(root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns for span in [*spawned, *drained])
    assert len(collector.spans) == 1 + 4 + 3 + 3
    assert collector.undocumented() == set()
    assert collector.faults == []


def test_counters_of_a_tree_are_exact(tree: Tree, collector: Collector) -> None:
    point(tree, collector)
    tree.start()
    for _ in range(3):
        victim = tree.pids()[0]
        os.kill(victim, signal.SIGKILL)
        tree.eventually(partial(_is_replaced, tree, victim))
    tree.code(version=2, import_error="broken")
    assert tree.reload()["ok"] is False
    tree.code(version=3)
    for _ in range(2):
        assert tree.reload()["ok"] is True
    collector.wait_until(lambda: collector.total("ragagent.reloads") == 3, DEADLINE_SECONDS)
    by_outcome = {p.attributes["ragagent.reload.outcome"]: p.value for p in collector.of("ragagent.reloads")}
    assert by_outcome == {"ok": 2, "not_ready": 1, "invalid_config": 0, "stopped": 0}
    exits = {
        p.attributes[REASON]: p.value
        for p in collector.of("ragagent.worker.exits", {"ragagent.process.role": "worker"})
    }
    assert {reason: count for reason, count in exits.items() if count} == {"signal": 3, "drain": 4}
    assert collector.total("ragagent.worker.restarts") == 3
    assert collector.total("ragagent.worker.spawn.duration", {"ragagent.process.role": "worker"}) == 2 + 3 + 4
    assert collector.total("ragagent.reload.duration", {"ragagent.reload.outcome": "ok"}) == 2
    assert collector.total("ragagent.telemetry.dropped") == 0
    assert collector.total("ragagent.worker.target") == 2
    running = {"ragagent.worker.state": "running", "ragagent.release.standing": "current"}
    collector.wait_until(lambda: collector.total("ragagent.worker.up", running) == 3, DEADLINE_SECONDS)
    answered = {"ragagent.probe.outcome": "ok"}
    collector.wait_until(lambda: collector.total("ragagent.probe.results", answered) >= 2, DEADLINE_SECONDS)
    assert len(collector.named("ragagent.worker.lifecycle")) == 3
    assert {span.attributes[REASON] for span in collector.named("ragagent.worker.lifecycle")} == {"signal"}
    outcomes = sorted(span.attributes["ragagent.reload.outcome"] for span in collector.named("ragagent.reload"))
    assert outcomes == ["not_ready", "ok", "ok"]
    assert "broken" not in repr(collector.spans)
    assert tree.stop() == 0
    assert collector.total("ragagent.worker.exits") == 3 + 6 + 3
    assert collector.total("ragagent.worker.up") == 0
    assert collector.undocumented() == set()


def _is_replaced(tree: Tree, victim: int) -> bool:
    pids = tree.pids()
    return len(pids) == 2 and victim not in pids


def test_hang_of_a_tree_is_told(tree: Tree, collector: Collector) -> None:
    point(tree, collector, hang_seconds=1.0)
    tree.start()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/block")
        collector.wait_for("ragagent.worker.lifecycle", DEADLINE_SECONDS)
    (trace,) = collector.named("ragagent.worker.lifecycle")
    assert (trace.attributes[REASON], trace.is_error) == ("hang", True)
    collector.wait_until(lambda: collector.total("ragagent.worker.exits", {REASON: "hang"}) == 1, DEADLINE_SECONDS)
