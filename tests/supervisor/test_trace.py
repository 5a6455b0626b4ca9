"""The record of a reload: its phases, its times, and what it keeps to itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ragagent.errors import EXIT_CONFIG
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.release import Failure, Release
from ragagent.supervisor.trace import record, report

if TYPE_CHECKING:
    pass

PHASES = ["ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch", "ragagent.reload.drain"]


def release(*marks: str) -> Release:
    begun = time.monotonic() - 10
    moments = {mark: begun + second for second, mark in enumerate(marks)}
    return Release(7, Limits(1, 1, 1), previous=6, marks=moments)


def test_record_of_a_good_reload_has_every_phase_end_to_end() -> None:
    trace = record(release("requested", "loaded", "ready", "serving", "finished"), None)
    assert [span["name"] for span in trace["spans"]] == PHASES
    assert trace["spans"][0]["start"] == trace["start"]
    assert trace["spans"][-1]["end"] == trace["end"]
    ends = [span["end"] for span in trace["spans"]]
    assert ends[:-1] == [span["start"] for span in trace["spans"][1:]]
    assert trace["end"] - trace["start"] == 4_000_000_000
    assert abs(time.time_ns() - 6_000_000_000 - trace["end"]) < 1_000_000_000


def test_record_of_a_failed_reload_marks_the_phase_that_failed_and_quotes_nothing() -> None:
    failure = Failure("Config key 'embedder.api_key' has value 'sk-secret'.", EXIT_CONFIG)
    trace = record(release("requested", "loaded", "finished"), failure)
    assert [(span["name"], span["is_error"]) for span in trace["spans"]] == [(PHASES[0], False), (PHASES[1], True)]
    assert trace["attributes"]["ragagent.reload.outcome"] == "invalid_config"
    assert trace["is_error"]
    assert "sk-secret" not in repr(trace)


def test_nothing_is_started_without_a_collector() -> None:
    assert report(record(release("requested", "finished"), None), "", "mine") is None
