"""What the exporting process makes of messages, against a collector that decodes it, or hangs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otlp_collector import Collector, otlp_collector
from ragagent import names
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.member import Member
from ragagent.supervisor.release import Release
from ragagent.supervisor.tally import Tally
from ragagent.supervisor.trace import Clock, Life, of_reload

DEADLINE_SECONDS = 20.0
PHASES = ["ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch", "ragagent.reload.drain"]
Say = Callable[[dict[str, Any]], None]


class Exporter:
    """The real process, and our end of its line."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-W", "error", "-m", "ragagent.supervisor.report"]
            arguments = ["--supervisor", str(os.getpid()), "--line", str(theirs.fileno())]
            self.process = subprocess.Popen([*command, *arguments], pass_fds=[theirs.fileno()])

    def say(self, message: dict[str, Any], collector: Collector, name: str = "mine") -> None:
        to = {"endpoint": collector.endpoint, "service_name": name, "instance": "i-1", "pid": 77}
        self.line.send(json.dumps({**message, "to": to}).encode())

    def end(self) -> int:
        self.line.close()
        return self.process.wait(DEADLINE_SECONDS)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    yield exporter
    exporter.line.close()
    exporter.process.kill()
    exporter.process.wait(DEADLINE_SECONDS)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


def reload() -> dict[str, Any]:
    marks = {mark: float(second) for second, mark in enumerate(("requested", "loaded", "ready", "serving", "finished"))}
    release = Release(7, Limits(1, 1, 1), previous=6, marks=marks, changes={"server.workers": "rolls"})
    lives = [Life(Member("worker", 0, release, born=1.2), pid=42, ready=1.8)]
    return {"trace": of_reload(release, 0.0, 4.0, lives, "ok", Clock(10**18, 0))}


def measured(tally: Tally, now: int) -> dict[str, Any]:
    return {"metrics": {"began": 10**18, "now": 10**18 + now, "points": list(tally.points())}}


def test_trace_arrives_as_it_nests(exporter: Exporter, collector: Collector) -> None:
    exporter.say(reload(), collector)
    collector.wait_for("ragagent.reload", DEADLINE_SECONDS)
    (root,) = collector.named("ragagent.reload")
    children: list[list[Any]] = [[], [("ragagent.worker.spawn", [])], [], []]
    assert collector.tree(root.trace_id) == [("ragagent.reload", list(zip(PHASES, children, strict=True)))]
    assert root.resource["service.name"] == "mine"
    assert root.resource["service.instance.id"] == "i-1"
    assert root.resource["ragagent.process.role"] == "supervisor"
    assert root.resource["process.pid"] == 77
    assert root.attributes["ragagent.reload.changes"] == ("server.workers",)
    assert (root.start_ns, root.end_ns) == (10**18, 10**18 + 4_000_000_000)
    assert exporter.end() == 0
    assert collector.undocumented() == set()
    assert collector.faults == []


def test_numbers_arrive_as_totals_of_the_right_kind(exporter: Exporter, collector: Collector) -> None:
    tally = Tally()
    tally.count(names.RELOADS, {names.RELOAD_OUTCOME: "ok"}, 3)
    for seconds in (0.05, 0.07, 400.0):
        tally.record(names.RELOAD_DURATION, {names.RELOAD_OUTCOME: "ok"}, seconds)
    message = measured(tally, 5)
    message["metrics"]["points"] += [(names.WORKERS_TARGET.name, {}, 2), ("ragagent.of.another.version", {}, 1)]
    exporter.say(message, collector)
    collector.wait_for("ragagent.reloads", DEADLINE_SECONDS)
    assert exporter.end() == 0
    (reloads,) = collector.of("ragagent.reloads")
    assert (reloads.kind, reloads.value, reloads.is_monotonic) == ("sum", 3, True)
    assert reloads.resource["service.instance.id"] == "i-1"
    (target,) = collector.of("ragagent.worker.target")
    assert (target.kind, target.value, target.is_monotonic) == ("sum", 2, False)
    (duration,) = collector.of("ragagent.reload.duration")
    assert (duration.count, duration.bounds) == (3, names.RELOAD_DURATION.buckets)
    assert duration.buckets == (1, 1, *[0] * (len(duration.bounds) - 2), 1)
    assert collector.undocumented() == set()
    assert collector.faults == []


def test_of_several_totals_the_newest_counts(exporter: Exporter, collector: Collector) -> None:
    tally = Tally()
    for second in range(50):
        tally.count(names.RELOADS, {names.RELOAD_OUTCOME: "ok"})
        exporter.say(measured(tally, second), collector)
        exporter.say(reload(), collector)
    collector.wait_until(lambda: collector.total("ragagent.reloads") == 50, DEADLINE_SECONDS)
    assert len({span.trace_id for span in collector.named("ragagent.reload")}) == 50
    assert collector.requests < 50


def test_traces_wait_for_a_collector_that_takes_them(exporter: Exporter, collector: Collector) -> None:
    collector.behave("unavailable")
    for _ in range(3):
        exporter.say(reload(), collector)
    collector.wait_until(lambda: collector.requests > 0, DEADLINE_SECONDS)
    collector.behave("well")
    exporter.say(measured(Tally(), 1), collector)  # The next numbers take them along.
    collector.wait_until(lambda: len(collector.named("ragagent.reload")) == 3, DEADLINE_SECONDS)


def test_what_is_left_at_the_end_is_sent(exporter: Exporter, collector: Collector) -> None:
    exporter.say(reload(), collector)
    collector.wait_for("ragagent.reload", DEADLINE_SECONDS)  # It runs; the rest lies on the line when that ends.
    tally = Tally()
    tally.count(names.RELOADS, {names.RELOAD_OUTCOME: "ok"})
    exporter.say(measured(tally, 1), collector)
    assert exporter.end() == 0
    assert collector.total("ragagent.reloads") == 1


def test_each_message_goes_where_it_says(exporter: Exporter, collector: Collector) -> None:
    with otlp_collector() as other:
        exporter.say(reload(), collector, "before")
        exporter.say(reload(), other, "after")
        other.wait_for("ragagent.reload", DEADLINE_SECONDS)
        assert [span.resource["service.name"] for span in collector.named("ragagent.reload")] == ["before"]
        assert [span.resource["service.name"] for span in other.named("ragagent.reload")] == ["after"]


def test_signal_that_is_not_wanted_is_not_sent(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    exporter = Exporter()
    tally = Tally()
    tally.count(names.RELOADS, {names.RELOAD_OUTCOME: "ok"})
    exporter.say(reload(), collector)
    exporter.say(measured(tally, 1), collector)
    collector.wait_for("ragagent.reloads", DEADLINE_SECONDS)
    assert exporter.end() == 0
    assert collector.spans == []


def test_hanging_collector_holds_it_no_longer_than_its_timeouts(exporter: Exporter, collector: Collector) -> None:
    collector.behave("hang")
    for _ in range(3):
        exporter.say(reload(), collector)
    exporter.end()  # by itself, or by its alarm: the deadline is the assertion


def test_supervisor_that_is_gone_ends_it(collector: Collector) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        arguments = ["--supervisor", "1", "--line", str(theirs.fileno())]
        command = [sys.executable, "-m", "ragagent.supervisor.report", *arguments]
        assert (
            subprocess.run(command, pass_fds=[theirs.fileno()], timeout=DEADLINE_SECONDS, check=False).returncode == 0
        )
