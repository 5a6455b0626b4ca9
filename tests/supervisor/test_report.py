"""The child that exports a trace, against a collector that decodes it, or hangs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from otlp_collector import otlp_collector
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.release import Failure, Release
from ragagent.supervisor.trace import record, report

if TYPE_CHECKING:
    from supervisor.conftest import Tree

PHASES = ["ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch", "ragagent.reload.drain"]


def release(*marks: str) -> Release:
    begun = time.monotonic() - 10
    moments = {mark: begun + second for second, mark in enumerate(marks)}
    return Release(7, Limits(1, 1, 1), previous=6, marks=moments)


def test_report_exports_one_trace_that_a_collector_understands() -> None:
    with otlp_collector() as collector:
        trace = record(release("requested", "loaded", "ready", "serving", "finished"), None)
        pid = report(trace, collector.endpoint, "mine")
        assert pid is not None
        assert os.waitpid(pid, 0)[1] == 0
        (root,) = collector.named("ragagent.reload")
        assert collector.tree(root.trace_id) == [("ragagent.reload", [(name, []) for name in PHASES])]
        assert root.resource["service.name"] == "mine"
        assert root.resource["ragagent.process.role"] == "supervisor"
        assert root.resource["process.pid"] == os.getpid()
        assert root.end_ns - root.start_ns == 4_000_000_000
        assert collector.undocumented() == set()
        assert collector.faults == []


def test_report_gives_up_on_a_collector_that_hangs() -> None:
    with otlp_collector() as collector:
        collector.behave("hang")
        begun = time.monotonic()
        pid = report(record(release("requested", "finished"), Failure("no")), collector.endpoint, "mine")
        assert pid is not None
        assert time.monotonic() - begun < 1  # starting it is all that the supervisor waits for
        assert os.waitpid(pid, 0)[1] != 0


def test_reloads_of_a_tree_are_reported_and_a_hanging_collector_slows_none(tree: Tree) -> None:
    with otlp_collector() as collector:
        tree.configure(extra=f'[telemetry]\nendpoint = "{collector.endpoint}"')
        tree.start()
        assert tree.reload()["ok"] is True
        tree.code(version=2, import_error="broken")
        assert tree.reload()["ok"] is False
        collector.wait_until(lambda: len(collector.named("ragagent.reload")) == 2, 20)
        outcomes = {span.attributes["ragagent.reload.outcome"] for span in collector.named("ragagent.reload")}
        assert outcomes == {"ok", "not_ready"}
        collector.behave("hang")
        tree.code(version=3)
        for _ in range(2):
            assert tree.reload()["ok"] is True
        assert tree.stop() == 0
