from __future__ import annotations

from typing import Any

from ragagent.cli import fleet

WORKER: dict[str, Any] = {"role": "worker", "slot": 1, "state": "running", "last_exit": None}
INDEXER: dict[str, Any] = {"role": "indexer", "slot": 0, "state": "running", "last_exit": None}


def reply(*workers: dict[str, Any], **supervisor: Any) -> dict[str, Any]:
    found = {"release": 2, "started_at": 0.0, "reloads": {"ok": 1, "failed": 0, "last_error": None}}
    return {"supervisor": found | supervisor, "workers": list(workers), "indexer": INDEXER}


def test_the_headline_counts_the_workers_that_serve() -> None:
    booting = WORKER | {"state": "starting"}
    told = fleet.headline(reply(WORKER, booting, workers_wanted=2), 60.0)
    assert told == ["release 2", "1 of 2 workers", "up 1 m 0 s", "reloads 1"]


def test_a_clock_that_was_set_back_makes_no_negative_uptime() -> None:
    assert "up 0 ms" in fleet.headline(reply(started_at=100.0), 60.0)


def test_the_last_failed_reload_is_one_line() -> None:
    reloads = {"ok": 0, "failed": 3, "last_error": "SyntaxError:\n  line 7\x1b[2J"}
    assert fleet.trouble(reply(reloads=reloads)) == "last failed reload: SyntaxError: line 7[2J"
    assert "reloads 0, 3 failed" in fleet.headline(reply(reloads=reloads), 60.0)
    assert fleet.trouble(reply()) == ""


def test_what_is_healthy_has_no_note() -> None:
    healthy = WORKER | {"probe": {"outcome": "ok", "failures": 0}, "worn": None, "last_exit": "exit code 0"}
    unasked = WORKER | {"probe": {"outcome": None, "failures": 0}}
    assert list(fleet.notes(reply(healthy, unasked, WORKER))) == []


def test_what_is_not_is_told_by_name() -> None:
    sick = WORKER | {"probe": {"outcome": "not_ready", "failures": 1}, "worn": "too large", "last_exit": "signal 9"}
    assert list(fleet.notes(reply(sick))) == [
        "worker 1: answers its probe that it is not ready (1 in a row)",
        "worker 1: about to be replaced: too large",
        "worker 1: last exit: signal 9",
    ]
    odd = {"indexer": INDEXER | {"probe": {"outcome": "asleep"}}}
    assert list(fleet.notes(reply() | odd)) == ["indexer: asleep (0 in a row)"]


def test_memory_is_told_where_it_is_known() -> None:
    assert fleet.memory({"pss_bytes": 3 << 20}) == "3.0 MiB"
    assert fleet.memory({"pss_bytes": None}) is None
    assert fleet.memory({}) is None


def test_the_indexer_comes_last_and_may_be_missing() -> None:
    assert [fleet.name(entry) for entry in fleet.processes(reply(WORKER))] == ["worker 1", "indexer"]
    assert fleet.processes({"workers": [], "indexer": {}}) == []
