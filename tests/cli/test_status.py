from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

Run = Callable[..., Result]
Supervisor = Callable[[dict[str, Any]], Path]


def process(role: str, slot: int, **values: Any) -> dict[str, Any]:
    entry = {"pid": 100 + slot, "slot": slot, "role": role, "release": 2, "state": "running", "age_seconds": 61.0}
    entry |= {"heartbeat_age_seconds": 0.2, "restarts": 0, "last_exit": None, "stats": {}}
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
    },
    "bind": "http://127.0.0.1:8000",
    "workers": [
        process("worker", 0, stats={"in_flight": 3, "requests": 4711}),
        process("worker", 1, pid=None, state="backoff", restarts=7, last_exit="signal 9", heartbeat_age_seconds=None),
    ],
    "indexer": process("indexer", 0),
    "stores": [{"id": "vs_1", "name": "手册", "seq": 9, "generation": 4, "rows": 1234, "delta_rows": 5}],
}


def test_status_shows_each_process_and_store(run: Run, supervisor: Supervisor) -> None:
    started = {"supervisor": STATUS["supervisor"] | {"started_at": time.time() - 9000}}
    lines = run("status", "--data", supervisor({"status": STATUS | started})).stdout.splitlines()
    assert lines[0].startswith("supervisor pid 99 · running · release 2 · up 2 h 30 m · reloads 1, 2 failed")
    assert lines[1] == "last failed reload: Unknown config key 'server.wokers'."
    rows = {line[:10].strip(): line.split() for line in lines[3:] if line}
    assert rows["worker 0"][2:] == ["100", "2", "running", "1", "m", "1", "s", "200", "ms", "3", "4711", "0", "-"]
    assert rows["worker 1"][2:] == ["-", "2", "backoff", "1", "m", "1", "s", "-", "-", "-", "7", "signal", "9"]
    assert "indexer" in rows
    assert rows["vs_1   手册"] == ["vs_1", "手册", "4", "9", "1234", "5"]


def test_status_as_json_is_the_reply_itself(run: Run, supervisor: Supervisor) -> None:
    assert json.loads(run("status", "--data", supervisor({"status": STATUS}), "--json").stdout) == STATUS


def test_a_server_that_just_starts_has_a_status(run: Run, supervisor: Supervisor) -> None:
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


def test_a_supervisor_that_ends_meanwhile_is_told(run: Run, supervisor: Supervisor) -> None:
    result = run("status", "--data", supervisor({}))
    assert result.exit_code == 1
    assert "ended before it answered" in result.stderr
