from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from fake_supervisor import FakeSupervisor

Run = Callable[..., Result]


def test_without_a_slot_all_workers_are_replaced(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("recycle", "--data", supervisor({"recycle": {"ok": True, "slots": [0, 1]}}))
    assert (result.exit_code, result.stdout) == (0, "Replaced: worker 0, worker 1.\n")
    assert supervisor.requests == [{"command": "recycle", "slot": None}]


def test_one_slot_is_replaced_alone(run: Run, supervisor: FakeSupervisor) -> None:
    reply = {"ok": True, "slots": [0]}
    assert json.loads(run("recycle", "0", "--json", "--data", supervisor({"recycle": reply})).stdout) == reply
    assert supervisor.requests == [{"command": "recycle", "slot": 0}]


def test_an_unknown_slot_is_exit_code_1_with_the_reason(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("recycle", "9", "--data", supervisor({"recycle": {"ok": False, "reason": "There is no slot 9."}}))
    assert (result.exit_code, result.stderr) == (1, "Error: There is no slot 9.\n")


def test_no_slot_is_wrong_usage(run: Run, supervisor: FakeSupervisor) -> None:
    assert run("recycle", "first", "--data", supervisor({})).exit_code == 2
