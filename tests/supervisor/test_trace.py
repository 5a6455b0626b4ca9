"""The trees of spans: their phases, their times, whose children stand where, and what they keep to themselves."""

from __future__ import annotations

from typing import Any

from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.member import Member
from ragagent.supervisor.release import Failure, Release
from ragagent.supervisor.trace import Clock, Life, of_reload, of_replacement, outcome_of

PHASES = ["ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch", "ragagent.reload.drain"]
LIMITS = Limits(1, 1, 1)
UNIX = Clock(1_000_000_000_000, 0)
OLD = Release(6, LIMITS)


def release(*marks: str) -> Release:
    """A release whose marks are a second apart, from second 10 on."""
    return Release(7, LIMITS, previous=6, marks={mark: 10.0 + second for second, mark in enumerate(marks)})


def worker(of: Release, born: float, **moments: Any) -> Life:
    return Life(Member("worker", 1, of, born=born), pid=41, **moments)


def names_of(spans: list[dict[str, Any]]) -> list[str]:
    return [span["name"] for span in spans]


def test_good_reload_has_every_phase_end_to_end_and_begins_when_it_was_asked_for() -> None:
    span = of_reload(release("requested", "loaded", "ready", "serving", "finished"), 9.5, 14.0, [], "ok", UNIX)
    assert names_of(span["spans"]) == PHASES
    assert (span["start"], span["end"]) == (1_009_500_000_000, 1_014_000_000_000)
    starts, ends = [child["start"] for child in span["spans"]], [child["end"] for child in span["spans"]]
    assert starts[0] == 1_010_000_000_000
    assert (starts[1:], ends[-1]) == (ends[:-1], span["end"])
    assert span["attributes"]["ragagent.release"] == 7
    assert span["attributes"]["ragagent.release.previous"] == 6


def test_each_member_stands_under_the_phase_that_waited_for_it() -> None:
    incoming = release("requested", "loaded", "ready", "serving", "finished")
    lives = [
        worker(incoming, 11.2, ready=11.7),
        worker(OLD, 1.0, ready=1.5, told=13.1, ended=13.9, reason="drain"),
        worker(OLD, 1.0, ready=1.5, told=13.1, ended=13.9, reason="killed"),
        worker(OLD, 1.0, ready=1.5, told=11.1, ended=11.2, reason="drain"),  # scaled away meanwhile
        worker(OLD, 1.0, ready=1.5, ended=11.2, reason="crash"),  # another trace's
        worker(incoming, 13.5, ready=13.7),  # scaled up, or started for one that was lost, after the switch
    ]
    _, ready, _, drain = of_reload(incoming, 10.0, 14.0, lives, "ok", UNIX)["spans"]
    (spawned,) = ready["spans"]
    assert (spawned["name"], spawned["start"], spawned["end"]) == (
        "ragagent.worker.spawn",
        1_011_200_000_000,
        1_011_700_000_000,
    )
    assert spawned["attributes"] == {
        "ragagent.process.role": "worker",
        "ragagent.worker.slot": 1,
        "ragagent.release": 7,
        "process.pid": 41,
    }
    drained, killed = drain["spans"]
    assert names_of([drained, killed]) == ["ragagent.worker.drain"] * 2
    assert drained["end"] - drained["start"] == 800_000_000
    assert drained["attributes"]["ragagent.worker.exit.reason"] == "drain"
    assert (drained["is_error"], killed["is_error"]) == (False, True)


def test_failed_reload_marks_the_phase_and_the_child_that_failed_and_quotes_nothing() -> None:
    incoming = release("requested", "loaded")
    incoming.failure = Failure("Config key 'embedder.api_key' has value 'sk-secret'.", EXIT_CONFIG)
    lives = [
        worker(incoming, 11.1, ready=11.2),
        worker(incoming, 11.3, ended=11.4, reason="crash"),
        worker(incoming, 11.5),
    ]
    span = of_reload(incoming, 10.0, 12.0, lives, outcome_of(incoming.failure), UNIX)
    assert [(phase["name"], phase["is_error"]) for phase in span["spans"]] == [(PHASES[0], False), (PHASES[1], True)]
    assert span["attributes"]["ragagent.reload.outcome"] == "invalid_config"
    assert span["is_error"]
    children = span["spans"][1]["spans"]
    assert [child["attributes"].get("error.type") for child in children] == [None, "crash", "not_ready"]
    assert children[1]["end"] == 1_011_400_000_000
    assert children[2]["end"] == span["end"]
    assert "sk-secret" not in repr(span)


def test_stop_during_a_reload_is_no_error() -> None:
    span = of_reload(release("requested", "loaded", "ready", "serving"), 10.0, 20.0, [], "stopped", UNIX)
    assert not any(part["is_error"] for part in (span, *span["spans"]))
    assert span["spans"][-1]["end"] == span["end"] == 1_020_000_000_000


def test_outcome_comes_from_the_exit_code_alone() -> None:
    codes = (EXIT_CONFIG, EXIT_CANNOT_START, EXIT_OK)
    outcomes = [outcome_of(None), *(outcome_of(Failure("why", code)) for code in codes)]
    assert outcomes == ["ok", "invalid_config", "not_ready", "stopped"]


def test_replacement_lasts_from_the_loss_to_the_end_of_the_wait() -> None:
    dead = worker(OLD, 1.0, ready=1.5, lost=5.0, ended=5.0, reason="signal")
    span = of_replacement(dead, worker(OLD, 5.1, ready=5.4), 5.5, UNIX)
    assert (span["name"], span["start"], span["end"]) == (
        "ragagent.worker.lifecycle",
        1_005_000_000_000,
        1_005_500_000_000,
    )
    assert span["attributes"]["ragagent.worker.exit.reason"] == span["attributes"]["error.type"] == "signal"
    assert [(child["name"], child["is_error"]) for child in span["spans"]] == [("ragagent.worker.spawn", False)]
    failed = of_replacement(dead, worker(OLD, 5.1, ended=5.3, reason="crash"), 5.3, UNIX)
    assert failed["spans"][0]["attributes"]["error.type"] == "crash"
