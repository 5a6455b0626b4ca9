"""What the service manager is told, and in which order: of a fleet in memory, and of a whole tree."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import EXIT_CANNOT_START, EXIT_OK
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.fleet import Fleet, Stop
from ragagent.supervisor.herald import Herald, is_healthy, status_text
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.notify import Notifier
from ragagent.supervisor.release import Failure, Release
from supervisor.test_notify import Manager

if TYPE_CHECKING:
    from supervisor.conftest import Tree

LIMITS = Limits(ready_seconds=20, hang_seconds=10, graceful_seconds=8)


def serving(workers: int = 2) -> Fleet:
    """Return a fleet of one release that serves."""
    fleet = Fleet(LIMITS, current=Release(1, LIMITS, workers=workers, finished=True), last_number=1)
    assert fleet.current is not None
    fleet.members = [Member("worker", slot, fleet.current, 0.0, State.RUNNING) for slot in range(workers)]
    return fleet


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    with manager.socket:
        yield manager


@pytest.fixture
def herald(manager: Manager) -> Iterator[Herald]:
    notifier = Notifier(manager.socket.getsockname(), watchdog_seconds=4.0)
    yield Herald(notifier)
    notifier.close()


def words(heard: list[str], *, without: str = "WATCHDOG") -> list[str]:
    """Return the words without their values, and without the beats that have no place in an order."""
    return [word.partition("=")[0] for word in heard if not word.startswith(without)]


def test_status_text_says_what_a_person_on_call_asks_first() -> None:
    fleet = Fleet(LIMITS)
    assert status_text(fleet) == "Starting."
    fleet = serving(workers=1)
    assert status_text(fleet) == "Release 1 serves, 1 worker running."
    fleet.incoming, fleet.last_number = Release(2, LIMITS, previous=1), 2
    assert status_text(fleet) == "Release 1 serves, 1 worker running. Release 2 is on its way."
    fleet.incoming, fleet.reloads.last_failure = None, Failure("SyntaxError: app.py:3")
    assert status_text(fleet) == "Release 1 serves, 1 worker running. Reload failed: SyntaxError: app.py:3"
    fleet.reloads.last_failure = Failure("x" * 1_000)
    assert len(status_text(fleet)) == 300
    fleet.current, fleet.reloads.last_failure = Release(3, LIMITS, previous=1), None
    assert status_text(fleet) == "Release 3 serves, 1 worker running."
    fleet.stop = Stop(0.0, EXIT_OK)
    assert status_text(fleet) == "Stopping: 1 process left."


def test_watchdog_vouches_only_for_a_worker_that_beats(herald: Herald, manager: Manager) -> None:
    fleet = serving()
    herald.tell(fleet, 0.0)
    assert "WATCHDOG=1" not in manager.heard(), "it is not ready yet"
    herald.ready()
    for now in (0.0, 0.5, 1.9, 2.0, 3.9, 4.1):
        herald.tell(fleet, now)
    assert manager.heard().count("WATCHDOG=1") == 3, "once per half interval"
    herald.tell(fleet, 10.1)
    assert manager.heard() == [], "no worker has beaten for hang_seconds"
    fleet.heard(fleet.members[1], 10.0)
    herald.tell(fleet, 10.1)
    assert manager.heard() == ["WATCHDOG=1"]
    fleet.members[1].state = State.STOPPING
    assert not is_healthy(fleet, 10.1)
    fleet.members[1].state, fleet.members[1].probe.outcome = State.RUNNING, "no_answer"
    assert not is_healthy(fleet, 10.1)


def test_reload_that_fails_within_one_turn_is_told_whole(herald: Herald, manager: Manager) -> None:
    fleet = serving()
    herald.ready()
    herald.tell(fleet, 0.0)
    manager.heard()
    fleet.reloads.failed, fleet.reloads.last_failure = 1, Failure("no memory")
    herald.tell(fleet, 0.1)
    heard = manager.heard()
    assert words(heard) == ["RELOADING", "STATUS", "READY"]
    assert "STATUS=Release 1 serves, 2 workers running. Reload failed: no memory" in heard


def test_reload_that_follows_another_at_once_is_told_by_itself(herald: Herald, manager: Manager) -> None:
    fleet = serving()
    herald.ready()
    fleet.incoming, fleet.last_number = Release(2, LIMITS, previous=1), 2
    herald.tell(fleet, 0.0)
    fleet.current, fleet.incoming, fleet.last_number = fleet.incoming, Release(3, LIMITS, previous=2), 3
    fleet.reloads.ok = 1
    herald.tell(fleet, 0.1)
    fleet.current, fleet.incoming, fleet.reloads.ok = fleet.incoming, None, 2
    assert fleet.current is not None
    fleet.current.finished = True
    herald.tell(fleet, 0.2)
    expected = ["READY", "RELOADING", "READY", "RELOADING", "READY"]
    assert words([word for word in manager.heard() if not word.startswith("STATUS")]) == expected


def test_stop_is_said_once_with_the_time_that_it_may_take(herald: Herald, manager: Manager) -> None:
    fleet = serving()
    fleet.stop = Stop(0.0, EXIT_OK)
    herald.tell(fleet, 0.0)
    herald.tell(fleet, 0.2)
    assert manager.heard() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=Stopping: 2 processes left."]


# -- a whole tree


class Witness:
    """Collects what the tree says, in order."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.said: list[str] = []

    def heard(self) -> list[str]:
        self.said += self.manager.heard()
        return self.said

    def since(self, mark: int) -> list[str]:
        return words(self.heard()[mark:])


@pytest.fixture
def witness(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Witness:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.socket.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    return Witness(manager)


def test_order_through_start_reload_failed_reload_and_stop(tree: Tree, witness: Witness) -> None:
    tree.spawn()
    tree.eventually(lambda: "READY=1" in witness.heard())
    assert [word for word in words(witness.heard()) if word != "STATUS"] == ["READY"]
    assert tree.status()["supervisor"]["release"] == 1, "ready means that a release serves"
    tree.eventually(lambda: tree.is_settled(1))
    tree.eventually(lambda: "STATUS=Release 1 serves, 2 workers running." in witness.heard())
    tree.eventually(lambda: witness.heard().count("WATCHDOG=1") >= 2)

    mark = len(witness.heard())
    tree.code(version=2)
    assert tree.reload()["ok"] is True
    tree.eventually(lambda: "READY" in witness.since(mark))
    said = witness.since(mark)
    assert (said[0], said[-1]) == ("RELOADING", "READY")
    assert set(said[1:-1]) == {"STATUS"}
    assert "STATUS=Release 2 serves, 2 workers running." in witness.heard()

    mark = len(witness.heard())
    tree.code(version=3, import_error="broken at import")
    tree.send(signal.SIGHUP)
    tree.eventually(lambda: "READY" in witness.since(mark))
    assert witness.since(mark) == ["RELOADING", "STATUS", "STATUS", "READY"]
    last = [word for word in witness.heard() if word.startswith("STATUS")][-1]
    assert last.startswith("STATUS=Release 2 serves, 2 workers running. Reload failed: RuntimeError: broken at import")

    mark = len(witness.heard())
    assert tree.stop() == EXIT_OK
    said = witness.since(mark)
    assert said[:2] == ["STOPPING", "EXTEND_TIMEOUT_USEC"]
    assert set(said[2:]) == {"STATUS"}
    budget = next(int(w.partition("=")[2]) for w in witness.heard() if w.startswith("EXTEND"))
    assert budget > 5_000_000, "graceful_seconds and some"


def test_first_boot_that_fails_is_never_ready(tree: Tree, witness: Witness) -> None:
    tree.code(version=1, lifespan_error="index is gone")
    assert tree.spawn().wait(20) == EXIT_CANNOT_START
    assert "READY" not in words(witness.heard())


def test_nobody_vouches_for_a_service_whose_only_worker_hangs(tree: Tree, witness: Witness) -> None:
    tree.configure(workers=1, hang_seconds=2.0)
    tree.start()
    (worker,) = tree.pids()
    os.kill(worker, signal.SIGSTOP)
    none, one = (f"STATUS=Release 1 serves, {workers} running." for workers in ("0 workers", "1 worker"))
    tree.eventually(lambda: none in witness.heard() and one in witness.heard()[witness.heard().index(none) :])
    dark = witness.said.index(none)
    assert "WATCHDOG=1" in witness.said[:dark]
    assert "WATCHDOG=1" not in witness.said[dark : witness.said.index(one, dark)]
    tree.eventually(lambda: "WATCHDOG=1" in witness.heard()[witness.said.index(one, dark) :])


def test_children_cannot_speak_in_our_name(tree: Tree, witness: Witness) -> None:
    tree.start()
    for pid in tree.descendants():
        with suppress(FileNotFoundError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in environ
            assert b"WATCHDOG_USEC" not in environ


def test_upgrade_of_the_supervisor_is_a_reload_to_the_manager(tree: Tree, witness: Witness) -> None:
    tree.start()
    tree.eventually(lambda: "READY=1" in witness.heard())
    mark = len(witness.heard())
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: "READY" in witness.since(mark))
    assert tree.is_settled(2)
    assert [word for word in witness.since(mark) if word != "STATUS"] == ["RELOADING", "READY"]
    mark = len(witness.heard())
    tree.eventually(lambda: "WATCHDOG=1" in witness.heard()[mark:])
    assert tree.stop() == EXIT_OK
    assert "STOPPING" in witness.since(mark)
