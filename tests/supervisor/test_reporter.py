"""The line to the exporter and the exporter's life: nothing that happens there may make the supervisor wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otlp_collector import Collector, otlp_collector
from ragagent.supervisor.process import Helpers, described
from ragagent.supervisor.reporter import Reporter

if TYPE_CHECKING:
    from supervisor.conftest import Tree

DEADLINE_SECONDS = 20.0


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture
def helpers() -> Helpers:
    return {}


@pytest.fixture
def reporter(collector: Collector, helpers: Helpers) -> Iterator[Reporter]:
    reporter = Reporter(helpers)
    reporter.point_at(collector.endpoint, "mine")
    yield reporter
    reporter.close(DEADLINE_SECONDS)


def total(value: int) -> dict[str, Any]:
    return {"metrics": {"began": 1, "now": 1 + value, "points": [["ragagent.reloads", {}, value]]}}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(reporter: Reporter) -> int:
    reporter.tend(time.monotonic())
    assert reporter.pid is not None
    return reporter.pid


def reap(helpers: Helpers, pid: int, now: float) -> None:
    """As the crew does: it learns of a death, and tells."""
    _, status = os.waitpid(pid, 0)
    helpers.pop(pid)(*described(status), now)


def test_nothing_is_started_without_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter({})
    reporter.tend(time.monotonic())
    reporter.send(total(1))
    reporter.point_at("", "mine")
    reporter.tend(time.monotonic())
    assert reporter.pid is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    reporter.point_at("http://127.0.0.1:1", "mine")
    reporter.tend(time.monotonic())
    assert (reporter.pid, reporter.dropped) == (None, 0)
    reporter.close(1)


def test_what_is_sent_before_it_runs_arrives(reporter: Reporter, collector: Collector) -> None:
    reporter.send(total(3))
    running(reporter)
    collector.wait_for("ragagent.reloads", DEADLINE_SECONDS)
    assert collector.total("ragagent.reloads") == 3
    assert collector.points[0].resource["process.pid"] == os.getpid()


def test_full_line_drops_and_counts_and_never_waits(reporter: Reporter, collector: Collector) -> None:
    pid = running(reporter)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _state(pid) == "T")
    for number in range(2000):
        reporter.send({**total(number), "padding": "x" * 1000})
    assert 0 < reporter.dropped < 2000
    os.kill(pid, signal.SIGCONT)
    arrived = 2000 - reporter.dropped - 1  # What found room is what was said first.
    collector.wait_until(lambda: collector.total("ragagent.reloads") == arrived, DEADLINE_SECONDS)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_message_beyond_a_packet_is_dropped(reporter: Reporter) -> None:
    reporter.send({"padding": "x" * 10_000_000})
    assert reporter.dropped == 1


def test_killed_exporter_is_replaced_with_a_backoff_and_what_lay_on_the_line_is_not_lost(
    reporter: Reporter, helpers: Helpers, collector: Collector
) -> None:
    first = running(reporter)
    os.kill(first, signal.SIGSTOP)
    reporter.send(total(5))
    os.kill(first, signal.SIGKILL)
    now = time.monotonic()
    reap(helpers, first, now)
    assert not _runs_after(reporter, now, 0.2)
    assert _runs_after(reporter, now, 0.25)
    collector.wait_for("ragagent.reloads", DEADLINE_SECONDS)
    assert collector.total("ragagent.reloads") == 5
    assert reporter.dropped == 0


def test_backoff_grows_to_its_limit(reporter: Reporter, helpers: Helpers) -> None:
    now = time.monotonic()
    waits = []
    for _ in range(12):
        reporter.tend(now)
        pid = reporter.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        reap(helpers, pid, now)
        waits.append(
            next(seconds for seconds in (0.25, 0.5, 1, 2, 4, 8, 16, 30, 99) if _runs_after(reporter, now, seconds))
        )
        now += waits[-1]
    assert waits[:7] == [0.25, 0.5, 1, 2, 4, 8, 16]
    assert set(waits[7:]) == {30}


def _runs_after(reporter: Reporter, now: float, seconds: float) -> bool:
    reporter.tend(now + seconds)
    return reporter.pid is not None


def test_the_death_of_one_that_was_told_to_leave_starts_no_other(reporter: Reporter, helpers: Helpers) -> None:
    first = running(reporter)
    reporter.point_at("", "mine")
    reap(helpers, first, time.monotonic())
    reporter.tend(time.monotonic())
    assert reporter.pid is None


def test_close_waits_for_what_is_left(reporter: Reporter, collector: Collector) -> None:
    pid = running(reporter)
    reporter.send(total(7))
    reporter.close(DEADLINE_SECONDS)
    assert collector.total("ragagent.reloads") == 7
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_close_kills_what_does_not_leave(reporter: Reporter) -> None:
    pid = running(reporter)
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    reporter.close(0.2)
    assert time.monotonic() - begun < DEADLINE_SECONDS
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_collector_that_is_dropped_lets_the_exporter_go_and_another_one_gets_a_new_one(
    reporter: Reporter, helpers: Helpers, collector: Collector
) -> None:
    first = running(reporter)
    reporter.point_at("", "mine")
    os.waitpid(first, 0)
    reporter.point_at(collector.endpoint, "mine")
    assert running(reporter) != first
    reporter.send(total(2))
    collector.wait_for("ragagent.reloads", DEADLINE_SECONDS)


# -- in a whole tree


def exporters(tree: Tree) -> list[int]:
    """The exporters that read their line: those that have a name by now."""
    return [pid for pid in tree.descendants() if _name(pid) == "rag-reporter"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # It is gone again.
        return ""


def point(tree: Tree, endpoint: str, **server: Any) -> None:
    tree.configure(extra=f'[telemetry]\nendpoint = "{endpoint}"\nmetrics_seconds = 0.3', **server)


def test_tree_without_a_collector_has_no_exporter(tree: Tree) -> None:
    tree.start()
    assert len(tree.descendants()) == 4


def test_killed_exporter_of_a_tree_is_replaced_and_the_numbers_stay_exact(tree: Tree, collector: Collector) -> None:
    point(tree, collector.endpoint)
    tree.start()
    assert tree.reload()["ok"] is True
    (first,) = tree.eventually(lambda: exporters(tree))
    os.kill(first, signal.SIGKILL)
    assert tree.reload()["ok"] is True
    tree.eventually(lambda: exporters(tree) not in ([], [first]))
    collector.wait_until(lambda: collector.total("ragagent.reloads") == 2, DEADLINE_SECONDS)
    instances = {point.resource["service.instance.id"] for point in collector.of("ragagent.reloads")}
    assert len(instances) == 1
    assert tree.stop() == 0
    assert collector.total("ragagent.reloads") == 2
    assert collector.total("ragagent.worker.exits") == 9  # three releases of two workers and an indexer


def test_killed_supervisor_leaves_no_exporter(tree: Tree, collector: Collector) -> None:
    point(tree, collector.endpoint)
    tree.start()
    (pid,) = tree.eventually(lambda: exporters(tree))
    os.kill(pid, signal.SIGSTOP)  # It cannot see the line end, as one cannot that waits for a collector.
    assert tree.process is not None
    tree.process.kill()
    tree.process.wait(DEADLINE_SECONDS)
    tree.eventually(lambda: not tree.is_alive(pid))


def test_exporter_outlives_the_signals_of_its_group(tree: Tree, collector: Collector) -> None:
    point(tree, collector.endpoint)
    tree.start()
    (pid,) = tree.eventually(lambda: exporters(tree))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(pid, number)
    assert tree.stop() == 0
    assert collector.total("ragagent.worker.exits", {"ragagent.worker.exit.reason": "drain"}) == 3
    assert "The exporter" not in tree.text()


def test_upgraded_supervisor_has_an_exporter_of_its_own_and_counts_anew(tree: Tree, collector: Collector) -> None:
    point(tree, collector.endpoint)
    tree.start()
    (first,) = tree.eventually(lambda: exporters(tree))
    assert tree.reload()["ok"] is True
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: tree.is_settled(3))
    tree.eventually(lambda: not tree.is_alive(first))
    collector.wait_until(lambda: len(collector.of("ragagent.reloads", {"ragagent.reload.outcome": "ok"})) == 2, 20)
    collector.wait_until(lambda: collector.total("ragagent.reloads") == 2, DEADLINE_SECONDS)
    assert len({span.trace_id for span in collector.named("ragagent.reload")}) == 2
    assert len({point.resource["service.instance.id"] for point in collector.of("ragagent.reloads")}) == 2
    assert tree.stop() == 0
    # Each image tells of the exits that it saw: the first of a reload's, the second of its own reload's and the last.
    assert collector.total("ragagent.worker.exits") == 3 + 3 + 3


def test_black_hole_slows_neither_a_reload_nor_a_stop(tree: Tree, collector: Collector) -> None:
    collector.behave("hang")
    point(tree, collector.endpoint)
    tree.start()
    for version in (2, 3):
        tree.code(version=version)
        begun = time.monotonic()
        assert tree.reload()["ok"] is True
        assert time.monotonic() - begun < DEADLINE_SECONDS
    tree.eventually(lambda: collector.requests)  # It holds the exporter by now.
    begun = time.monotonic()
    assert tree.stop() == 0
    assert time.monotonic() - begun < 5 + 2 + 5  # the budget of the workers, the two seconds, a slow machine


def test_reload_moves_the_export_to_another_collector(tree: Tree, collector: Collector) -> None:
    point(tree, collector.endpoint)
    tree.start()
    collector.wait_for("ragagent.worker.up", DEADLINE_SECONDS)
    with otlp_collector() as other:
        point(tree, other.endpoint)
        assert tree.reload()["ok"] is True
        other.wait_for("ragagent.reload", DEADLINE_SECONDS)
        assert collector.named("ragagent.reload") == []
        tree.configure()
        assert tree.reload()["ok"] is True
        tree.eventually(lambda: len(tree.descendants()) == 4)
        assert len(other.named("ragagent.reload")) == 1
