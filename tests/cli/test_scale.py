from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from fake_supervisor import FakeSupervisor

Run = Callable[..., Result]


def test_scale_asks_for_so_many_workers_and_says_when_they_are_there(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("scale", "4", "--data", supervisor({"scale": {"ok": True, "workers": 4}}))
    assert (result.exit_code, result.stdout) == (0, "Workers: 4.\n")
    assert supervisor.requests == [{"command": "scale", "workers": 4}]


def test_scale_as_json_is_the_reply_itself(run: Run, supervisor: FakeSupervisor) -> None:
    reply = {"ok": True, "workers": 4}
    assert json.loads(run("scale", "4", "--json", "--data", supervisor({"scale": reply})).stdout) == reply


def test_what_cannot_be_reached_is_exit_code_1_with_the_reason(run: Run, supervisor: FakeSupervisor) -> None:
    refused = {"ok": False, "reason": "Worker 3 does not start: out of memory."}
    result = run("scale", "4", "--json", "--data", supervisor({"scale": refused}))
    assert result.exit_code == 1
    assert "out of memory" in result.stderr
    assert json.loads(result.stdout)["error"]["message"] == refused["reason"]


@pytest.mark.parametrize("arguments", [[], ["0"], ["many"]])
def test_no_number_of_workers_is_wrong_usage(run: Run, supervisor: FakeSupervisor, arguments: list[str]) -> None:
    assert run("scale", *arguments, "--data", supervisor({})).exit_code == 2
    assert supervisor.requests == []
