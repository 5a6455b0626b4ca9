"""SIGUSR2 to a whole tree that runs from a copy of the package, which then changes under it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ragagent.errors import EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Load, Tree

MakeLoad = Callable[["Tree", int], "list[Load]"]


def version(tree: Tree) -> str | None:
    status = tree.status_or_none()
    return status["supervisor"]["version"] if status is not None else None


def upgraded(tree: Tree, to: str, release: int) -> None:
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: version(tree) == to)
    tree.eventually(lambda: tree.is_settled(release))


def test_the_supervisor_becomes_another_version_and_no_request_is_lost(tree: Tree, make_load: MakeLoad) -> None:
    tree.install("1.0")
    tree.start()
    before = tree.status()
    assert before["supervisor"]["version"] == "1.0"
    loads = make_load(tree, 3)
    for release, to in ((2, "2.0"), (3, "3.0")):  # Twice: the second image was itself made by an upgrade.
        tree.install(to)
        tree.code(version=release)
        upgraded(tree, to, release)
    for load in loads:
        load.finish()
    assert [load.failures for load in loads] == [[], [], []]
    after = tree.status()
    for key in ("pid", "started_at"):
        assert after["supervisor"][key] == before["supervisor"][key]
    assert after["bind"] == before["bind"]
    assert tree.get()["version"] == 3
    assert {w["restarts"] for w in after["workers"]} == {0}


def test_code_that_could_not_take_over_is_refused_and_a_good_one_follows(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    pids = tree.pids()
    tree.install("2.0", broken="supervisor/fleet.py")
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: "is not upgraded, and goes on as it is" in tree.text())
    assert "SyntaxError" in tree.text()
    assert (version(tree), tree.pids()) == ("1.0", pids)
    assert tree.get() is not None
    tree.install("3.0")
    upgraded(tree, "3.0", 2)


def test_new_workers_that_cannot_start_leave_the_old_ones_serving_under_the_new_supervisor(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    pids = tree.pids()
    tree.install("2.0", broken="edge/server.py")
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: version(tree) == "2.0" and tree.status()["supervisor"]["reloads"]["failed"] == 1)
    assert tree.pids() == pids
    assert tree.get() is not None
    os.kill(pids[0], signal.SIGKILL)  # Its successor comes from the old release's zygote, which was inherited.
    tree.eventually(lambda: len(now := tree.pids()) == 2 and pids[0] not in now)


def test_what_was_inherited_still_ends_with_the_supervisor(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    tree.install("2.0")
    upgraded(tree, "2.0", 2)
    pidfile = tree.data / "supervisor.pid"
    assert tree.process is not None
    assert int(pidfile.read_text()) == tree.process.pid
    family = tree.descendants()
    assert tree.stop() == EXIT_OK
    assert not any(map(tree.is_alive, family))
    assert not pidfile.exists()


def test_a_killed_image_leaves_no_orphan(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    tree.install("2.0")
    upgraded(tree, "2.0", 2)
    family = tree.descendants()
    tree.send(signal.SIGKILL)
    tree.eventually(lambda: not any(map(tree.is_alive, family)))


def test_no_descriptor_leaks_from_image_to_image(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    tree.eventually(lambda: len(tree.zygotes()) == 1)
    before = descriptors(tree)
    for release, to in ((2, "2.0"), (3, "3.0"), (4, "4.0")):
        tree.install(to)
        upgraded(tree, to, release)
    tree.eventually(lambda: descriptors(tree) <= before)


def descriptors(tree: Tree) -> int:
    assert tree.process is not None
    return len(list(Path(f"/proc/{tree.process.pid}/fd").iterdir()))


def test_a_release_that_speaks_otherwise_is_refused_with_the_way_out(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    pids = tree.pids()
    tree.install("2.0", edit=("supervisor/zygote.py", "dataclasses.asdict(facts.facts_of(self._config))", "{}"))
    reply = tree.reload()
    assert reply["ok"] is False
    assert "upgrade the supervisor first (SIGUSR2)" in reply["reason"]
    assert tree.pids() == pids
    assert tree.get() is not None


def test_a_newer_child_may_say_more_than_the_supervisor_knows(tree: Tree) -> None:
    tree.install("1.0")
    tree.start()
    tree.install("2.0", edit=("lifeline.py", 'self._say({"state": "finished"})', 'self._say({"state": "sings"})'))
    assert tree.reload()["ok"] is True
    assert tree.reload()["ok"] is True
