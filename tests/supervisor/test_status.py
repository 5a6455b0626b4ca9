"""The status document, of real processes and of a fleet that is not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragagent.supervisor import status
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import FATAL_FAILURES, Member, State
from ragagent.supervisor.release import Release

if TYPE_CHECKING:
    from supervisor.conftest import Tree

LIMITS = Limits(20, 10, 8)


def test_status_tells_every_process_truthfully(tree: Tree) -> None:
    tree.start()
    tree.get()
    status = tree.eventually(lambda: (s := tree.status())["workers"][0]["stats"] and s)
    assert status["supervisor"]["pid"] == tree.process.pid if tree.process else False
    assert status["supervisor"]["state"] == "running"
    assert status["supervisor"]["reloads"] == {"ok": 0, "failed": 0, "last_error": None}
    assert [worker["slot"] for worker in status["workers"]] == [0, 1]
    for member in [*status["workers"], status["indexer"]]:
        assert tree.is_alive(member["pid"])
        assert member["state"] == "running"
        assert member["release"] == 1
        assert member["heartbeat_age_seconds"] < 5
    assert set(status["workers"][0]["stats"]) >= {"in_flight", "connections", "requests"}
    assert status["stores"] == [{"id": "vs_1"}]


def test_empty_slot_is_shown_with_its_state_and_last_exit() -> None:
    fleet = Fleet(LIMITS)
    fleet.current = Release(1, LIMITS, workers=1)
    slot = fleet.slot(("worker", 0))
    slot.failures, slot.last_exit = 2, "signal 11, SIGSEGV"
    (worker,) = status.status(fleet, {}, 0.0)["workers"]
    assert (worker["pid"], worker["state"], worker["last_exit"]) == (None, "backoff", "signal 11, SIGSEGV")
    slot.failures = FATAL_FAILURES
    assert status.status(fleet, {}, 0.0)["workers"][0]["state"] == "fatal"
    assert status.state(fleet) == "fatal"


def test_before_the_first_release_there_is_an_indexer_to_come() -> None:
    reply = status.status(Fleet(LIMITS), {}, 0.0)
    assert (reply["workers"], reply["indexer"]["state"], reply["stores"]) == ([], "starting", [])
    assert status.state(Fleet(LIMITS)) == "starting"


def test_draining_worker_of_the_old_release_is_shown_beside_the_new_one() -> None:
    fleet = Fleet(LIMITS)
    fleet.current = Release(2, LIMITS, workers=1)
    old = Member("worker", 0, Release(1, LIMITS), born=0.0, state=State.STOPPING)
    new = Member("worker", 0, fleet.current, born=5.0, state=State.RUNNING, beat_at=9.0)
    fleet.members = [old, new]
    shown = [(w["release"], w["state"], w["age_seconds"]) for w in status.status(fleet, {}, 10.0)["workers"]]
    assert shown == [(2, "running", 5.0), (1, "stopping", 10.0)]
