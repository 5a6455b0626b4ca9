"""The control socket's commands, to a whole tree."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ragagent.errors import EXIT_ALL_FAILING, EXIT_OK
from ragagent.supervisor.control import request

if TYPE_CHECKING:
    from supervisor.conftest import Load, Tree

SECONDS = 30.0


def ask(tree: Tree, command: str, **arguments: Any) -> dict[str, Any]:
    return request(tree.data, command, SECONDS, **arguments)


def test_scale_answers_when_so_many_workers_run_and_no_other(tree: Tree) -> None:
    tree.start()
    assert ask(tree, "scale", workers=3) == {"ok": True, "workers": 3}
    assert [w["state"] for w in tree.status()["workers"]] == ["running"] * 3
    assert ask(tree, "scale", workers=1) == {"ok": True, "workers": 1}
    assert [w["slot"] for w in tree.status()["workers"]] == [0]
    assert tree.status()["supervisor"]["workers_wanted"] == 1


def test_scale_refuses_what_is_no_number_of_workers(tree: Tree) -> None:
    tree.start()
    for workers in (0, -1, 100_000, "2", 1.5, None, True):
        reply = ask(tree, "scale", workers=workers)
        assert reply["ok"] is False
        assert f"'workers' has value {workers!r}" in reply["reason"]
    assert len(tree.pids()) == 2


def test_recycle_replaces_every_worker_and_loses_no_request(
    tree: Tree, make_load: Callable[[Tree, int], list[Load]]
) -> None:
    tree.start()
    before = tree.pids()
    loads = make_load(tree, 3)
    assert ask(tree, "recycle", slot=None) == {"ok": True, "slots": [0, 1]}
    assert not set(before) & set(tree.pids())
    for load in loads:
        load.finish()
    assert [load.failures for load in loads] == [[], [], []]
    entry = tree.status()["workers"][0]
    assert (entry["restarts"], entry["last_exit"]) == (0, "its replacement was asked for (exit code 0)")


def test_recycle_of_one_worker_leaves_the_others(tree: Tree) -> None:
    tree.start()
    first, second = tree.pids()
    assert ask(tree, "recycle", slot=1) == {"ok": True, "slots": [1]}
    assert tree.pids()[0] == first
    assert second not in tree.pids()
    assert ask(tree, "recycle", slot=9)["reason"] == "There is no such worker."
    assert "'slot' has value 'x'" in ask(tree, "recycle", slot="x")["reason"]


def test_drain_answers_when_everything_has_finished(tree: Tree) -> None:
    tree.start()
    assert ask(tree, "drain") == {"ok": True, "code": EXIT_OK}
    assert tree.process is not None
    assert tree.process.wait(SECONDS) == EXIT_OK


def test_an_unknown_command_is_told_which_there_are(tree: Tree) -> None:
    tree.start()
    reply = ask(tree, "explode")
    assert reply["ok"] is False
    assert "'explode'; there are 'status', 'reload', 'scale', 'recycle', 'drain'" in reply["reason"]


def test_workers_are_recycled_by_their_number_of_requests(
    tree: Tree, make_load: Callable[[Tree, int], list[Load]]
) -> None:
    tree.configure(extra="[recycle]\nrequests = 50\nspacing_seconds = 0")
    tree.start()
    before = tree.pids()
    loads = make_load(tree, 3)
    tree.eventually(lambda: not set(before) & set(tree.pids()) and len(tree.pids()) == 2)
    for load in loads:
        load.finish()
    assert [load.failures for load in loads] == [[], [], []]
    assert "told to finish, as it has answered" in tree.text()


@pytest.mark.parametrize(
    ("code", "why"),
    [({"sick_slot": 1}, "it was not ready at"), ({"deaf_slot": 1}, "it did not answer")],
)
def test_a_worker_that_fails_its_probes_is_replaced(tree: Tree, code: dict[str, Any], why: str) -> None:
    tree.code(version=1, **code)
    tree.configure(
        extra="[probe]\ninterval_seconds = 0.1\ntimeout_seconds = 0.3\nfailures = 2\n[recycle]\nspacing_seconds = 0"
    )
    tree.start()
    well, sick = tree.pids()
    tree.eventually(lambda: sick not in tree.pids())
    assert tree.pids()[0] == well
    assert tree.status()["workers"][0]["probe"]["outcome"] == "ok"
    assert f"told to finish, as {why} 2 probes in a row" in tree.text()


@pytest.mark.soak
def test_a_fleet_that_cannot_live_ends_with_a_code_of_its_own(tree: Tree) -> None:
    tree.configure(workers=1)
    tree.start()
    assert tree.process is not None
    while tree.process.poll() is None:
        if (pid := _running(tree)) is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    assert tree.process.wait() == EXIT_ALL_FAILING
    assert "every worker keeps dying" in tree.text()


def _running(tree: Tree) -> int | None:
    """Return the pid of a worker that runs, if one does; None also while the supervisor is leaving."""
    try:
        status = request(tree.data, "status", 5)
    except Exception:
        return None
    return next((w["pid"] for w in status["workers"] if w["state"] == "running"), None)
