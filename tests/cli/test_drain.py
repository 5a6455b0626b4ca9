from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from fake_supervisor import Answer, FakeSupervisor
from ragagent.cli import drain

Run = Callable[..., Result]


def found(pid: int = 99) -> dict[str, Any]:
    workers = [{"stats": {"in_flight": 2}}, {"stats": {"in_flight": 1}}, {"stats": {}}]
    return {"ok": True, "supervisor": {"pid": pid}, "workers": workers}


def leaving(supervisor: FakeSupervisor, code: int = 0) -> dict[str, Any]:
    """A supervisor that answers, is there for one more look, and then has gone."""
    statuses: list[dict[str, Any] | None] = [found(), found(), None]
    return {"status": lambda _: statuses.pop(0), "drain": {"ok": True, "code": code}}


def test_drain_says_what_it_waits_for_and_ends_when_the_supervisor_is_gone(
    run: Run, supervisor: FakeSupervisor
) -> None:
    result = run("drain", "--data", supervisor(leaving(supervisor)))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "Draining: 3 requests in flight.",
        "Everything has finished, and the server has stopped.",
    ]
    assert [request["command"] for request in supervisor.requests] == ["status", "drain", "status", "status"]


def test_a_successor_that_was_started_at_once_is_not_waited_for(run: Run, supervisor: FakeSupervisor) -> None:
    answers: dict[str, Answer] = {"status": [found(99), found(100)], "drain": {"ok": True, "code": 0}}
    assert run("drain", "--data", supervisor(answers)).exit_code == 0


def test_drain_as_json_is_the_reply_alone(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("drain", "--json", "--data", supervisor(leaving(supervisor)))
    assert json.loads(result.stdout) == {"ok": True, "code": 0}


def test_an_end_that_is_a_failure_is_exit_code_1(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("drain", "--data", supervisor(leaving(supervisor, code=4)))
    assert result.exit_code == 1
    assert "exit code 4" in result.stderr


def test_a_refused_drain_is_exit_code_1_with_the_reason(run: Run, supervisor: FakeSupervisor) -> None:
    answers = {"status": found(), "drain": {"ok": False, "reason": "It is stopping already."}}
    result = run("drain", "--data", supervisor(answers))
    assert (result.exit_code, result.stderr) == (1, "Error: It is stopping already.\n")


def test_a_supervisor_that_does_not_leave_is_told(
    run: Run, supervisor: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "LEAVE_SECONDS", 0.2)
    result = run("drain", "--data", supervisor({"status": found(), "drain": {"ok": True, "code": 0}}))
    assert result.exit_code == 1
    assert "has not left yet" in result.stderr
