from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

Run = Callable[..., Result]
Supervisor = Callable[[dict[str, Any]], Path]

DONE = {"ok": True, "reason": None, "changes": ["profile", "server.hang_seconds", "server.workers"], "release": 3}


def test_reload_says_what_became_of_each_changed_key(run: Run, supervisor: Supervisor) -> None:
    result = run("reload", "--data", supervisor({"reload": DONE}))
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first == "Release 3 serves."
    assert [line.split()[:2] for line in rest] == [
        ["profile", "rolls:"],
        ["server.hang_seconds", "hot:"],
        ["server.workers", "rolls:"],
    ]


def test_reload_of_code_alone_says_so(run: Run, supervisor: Supervisor) -> None:
    assert "No config key has changed" in run("reload", "--data", supervisor({"reload": DONE | {"changes": []}})).stdout


def test_reload_as_json_is_the_reply_itself(run: Run, supervisor: Supervisor) -> None:
    assert json.loads(run("reload", "--data", supervisor({"reload": DONE}), "--json").stdout) == DONE


def test_a_failed_reload_is_exit_code_1_with_the_reason(run: Run, supervisor: Supervisor) -> None:
    failed = {"ok": False, "reason": "server.bind changed, which needs a restart", "changes": [], "release": 3}
    result = run("reload", "--data", supervisor({"reload": failed}))
    assert result.exit_code == 1
    assert "the old release keeps serving: server.bind changed" in result.stderr


def test_reload_without_a_server_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    result = run("reload", "--data", tmp_path)
    assert result.exit_code == 1
    assert "ragagent serve" in result.stderr
