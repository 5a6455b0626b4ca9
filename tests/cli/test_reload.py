from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from fake_supervisor import FakeSupervisor

Run = Callable[..., Result]

CHANGES = {"server.workers": "rolls", "profile": "rolls", "server.hang_seconds": "hot"}
DONE = {"ok": True, "reason": None, "changes": CHANGES, "release": 3}


def test_reload_says_what_became_of_each_changed_key(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("reload", "--data", supervisor({"reload": DONE}))
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first == "Release 3 serves."
    assert [line.split()[:2] for line in rest] == [
        ["profile", "rolled:"],
        ["server.hang_seconds", "hot:"],
        ["server.workers", "rolled:"],
    ]


def test_reload_of_code_alone_says_so(run: Run, supervisor: FakeSupervisor) -> None:
    assert "No config key has changed" in run("reload", "--data", supervisor({"reload": DONE | {"changes": {}}})).stdout


def test_reload_as_json_is_the_reply_itself(run: Run, supervisor: FakeSupervisor) -> None:
    assert json.loads(run("reload", "--data", supervisor({"reload": DONE}), "--json").stdout) == DONE


def test_a_failed_reload_is_exit_code_1_with_the_reason(run: Run, supervisor: FakeSupervisor) -> None:
    changes = {"server.bind": "restart", "server.workers": "rolls", "server.hang_seconds": "hot"}
    failed = {"ok": False, "reason": "server.bind changed, which needs a restart", "changes": changes, "release": 3}
    result = run("reload", "--data", supervisor({"reload": failed}))
    assert result.exit_code == 1
    assert "the old release keeps serving: server.bind changed" in result.stderr
    assert [line.split(maxsplit=1) for line in result.stdout.splitlines()] == [
        ["server.bind", "needs a restart: only a new supervisor takes it"],
        ["server.hang_seconds", "hot, but not taken"],
        ["server.workers", "rolls, but not taken"],
    ]


def test_a_failed_reload_as_json_is_the_error_alone(run: Run, supervisor: FakeSupervisor) -> None:
    stopped = {"ok": False, "reason": "The supervisor has stopped.", "changes": []}
    result = run("reload", "--json", "--data", supervisor({"reload": stopped}))
    assert result.exit_code == 1
    assert "The supervisor has stopped." in json.loads(result.stdout)["error"]["message"]


def test_reload_without_a_server_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    result = run("reload", "--data", tmp_path)
    assert result.exit_code == 1
    assert "ragagent serve" in result.stderr
