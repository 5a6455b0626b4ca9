from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from fake_supervisor import FakeSupervisor

Run = Callable[..., Result]


def process(role: str, slot: int, **values: Any) -> dict[str, Any]:
    entry = {"pid": 100 + slot, "slot": slot, "role": role, "release": 2, "state": "running", "age_seconds": 61.0}
    entry |= {"heartbeat_age_seconds": 0.2, "restarts": 0, "last_exit": None, "stats": {}, "pss_bytes": 100 << 20}
    entry |= {"probe": {"outcome": "ok", "failures": 0}, "worn": None}
    return entry | values


STATUS: dict[str, Any] = {
    "ok": True,
    "supervisor": {
        "pid": 99,
        "version": "0.1.0",
        "state": "running",
        "release": 2,
        "started_at": 0.0,
        "reloads": {"ok": 1, "failed": 2, "last_error": "Unknown config key 'server.wokers'."},
        "workers_wanted": 2,
        "pss_bytes": 20 << 20,
    },
    "bind": "http://127.0.0.1:8000",
    "workers": [
        process("worker", 0, stats={"in_flight": 3, "connections": 17, "requests": 4711}, worn="has served 1 h"),
        process("worker", 1, pid=None, state="backoff", restarts=7, heartbeat_age_seconds=None, pss_bytes=None)
        | {"last_exit": "signal 9", "probe": {"outcome": "no_answer", "failures": 2}},
    ],
    "indexer": process("indexer", 0),
    "stores": [{"id": "vs_1", "name": "手册", "seq": 9, "generation": 4, "rows": 1234, "delta_rows": 5}],
}


def test_status_shows_each_process_and_store(run: Run, supervisor: FakeSupervisor) -> None:
    started = {"supervisor": STATUS["supervisor"] | {"started_at": time.time() - 9000}}
    lines = run("status", "--data", supervisor({"status": STATUS | started})).stdout.splitlines()
    assert lines[:3] == [
        "supervisor pid 99 · running · release 2 · 1 of 2 workers · up 2 h 30 m · reloads 1, 2 failed",
        "ragagent 0.1.0 · http://127.0.0.1:8000 · supervisor's PSS 20.0 MiB",
        "last failed reload: Unknown config key 'server.wokers'.",
    ]
    rows = {line[:10].strip(): line.split() for line in lines[4:] if line}
    assert rows["worker 0"][2:] == [
        "100",
        "2",
        "running",
        "1",
        "m",
        "1",
        "s",
        "200",
        "ms",
        "100.0",
        "MiB",
        "3",
        "17",
        "4711",
        "0",
    ]
    assert rows["worker 1"][2:] == ["-", "2", "backoff", "1", "m", "1", "s", "-", "-", "-", "-", "-", "7"]
    assert "indexer" in rows
    assert [line for line in lines if line.startswith("worker") and ":" in line] == [
        "worker 0: about to be replaced: has served 1 h",
        "worker 1: does not answer its probe (2 in a row)",
        "worker 1: last exit: signal 9",
    ]
    assert rows["vs_1   手册"] == ["vs_1", "手册", "4", "9", "1234", "5"]


def test_status_tells_what_waits(run: Run, supervisor: FakeSupervisor) -> None:
    queue = {"documents": 12, "bytes": 4096, "oldest_age_seconds": 75.0}
    lines = run("status", "--data", supervisor({"status": STATUS | {"queue": queue}})).stdout.splitlines()
    assert "queue: 12 documents (4.0 KiB) wait, the oldest for 1 m 15 s" in lines
    empty = {"documents": 0, "bytes": 0, "oldest_age_seconds": 0.0}
    lines = run("status", "--data", supervisor({"status": STATUS | {"queue": empty}})).stdout.splitlines()
    assert "queue: 0 documents (0 B) wait" in lines


def test_status_as_json_is_the_reply_itself(run: Run, supervisor: FakeSupervisor) -> None:
    assert json.loads(run("status", "--data", supervisor({"status": STATUS}), "--json").stdout) == STATUS


def test_the_table_fits_into_120_columns(run: Run, supervisor: FakeSupervisor) -> None:
    stats = {"in_flight": 1000, "connections": 10_000, "requests": 99_999_999}
    large = process("worker", 63, pid=4_194_303, release=1000, state="stopping", age_seconds=55 * 60 + 55, stats=stats)
    large |= {"pss_bytes": 1000 << 20, "heartbeat_age_seconds": 0.999}
    shown = run("status", "--data", supervisor({"status": STATUS | {"workers": [large]}})).stdout
    assert max(map(len, shown.splitlines())) <= 120


def test_a_supervisor_that_tells_less_has_a_status(run: Run, supervisor: FakeSupervisor) -> None:
    known = {"pss_bytes", "probe", "worn", "workers_wanted"}
    older = {
        **STATUS,
        "supervisor": {key: value for key, value in STATUS["supervisor"].items() if key not in known},
        "workers": [{key: value for key, value in w.items() if key not in known} for w in STATUS["workers"]],
        "indexer": None,
    }
    lines = run("status", "--data", supervisor({"status": older})).stdout.splitlines()
    assert lines[1] == "ragagent 0.1.0 · http://127.0.0.1:8000"
    assert any(line.startswith("worker 0") for line in lines)


def test_where_not_all_stores_are_shown_it_says_how_many_there_are(run: Run, supervisor: FakeSupervisor) -> None:
    told = run("status", "--data", supervisor({"status": STATUS | {"store_count": 5000}})).stdout
    assert told.endswith("5000 stores in all; 'ragagent index ls' lists them.\n")


def test_a_server_that_just_starts_has_a_status(run: Run, supervisor: FakeSupervisor) -> None:
    booting = STATUS | {"workers": [], "indexer": {}, "stores": []}
    result = run("status", "--data", supervisor({"status": booting}))
    assert result.exit_code == 0
    assert result.stdout.startswith("supervisor pid 99")


def test_nothing_running_is_exit_code_1_and_says_how_to_start(run: Run, tmp_path: Path) -> None:
    for arguments in (["--data", str(tmp_path)], ["--data", str(tmp_path / "none"), "--json"], []):
        result = run("status", *arguments)
        assert result.exit_code == 1
        assert "No supervisor answers" in result.stderr
        assert "ragagent serve" in result.stderr


def test_a_supervisor_that_ends_meanwhile_is_told(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("status", "--data", supervisor({}))
    assert result.exit_code == 1
    assert "ended before it answered" in result.stderr
