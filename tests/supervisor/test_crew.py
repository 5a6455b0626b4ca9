"""Real deaths: whoever is killed, hangs or is stopped, the tree is whole again, or gone."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisor.conftest import Tree


def test_children_are_the_supervisors_own(tree: Tree) -> None:
    tree.start()
    assert tree.process is not None
    for pid in [*tree.pids(), *tree.pids("indexer")]:
        assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == tree.process.pid


def test_killed_worker_is_replaced(tree: Tree) -> None:
    tree.start()
    victim, other = tree.pids()
    os.kill(victim, signal.SIGKILL)
    pids = tree.eventually(lambda: len(p := tree.pids()) == 2 and victim not in p and p)
    assert other in pids
    entry = next(worker for worker in tree.status()["workers"] if worker["pid"] != other)
    assert entry["restarts"] == 1
    assert "SIGKILL" in entry["last_exit"]


def test_killed_indexer_is_replaced(tree: Tree) -> None:
    tree.start()
    (victim,) = tree.pids("indexer")
    os.kill(victim, signal.SIGKILL)
    tree.eventually(lambda: tree.pids("indexer") not in ([], [victim]))


def test_killed_supervisor_leaves_no_orphan_and_frees_the_port(tree: Tree) -> None:
    tree.start()
    assert tree.process is not None
    port = int(tree.status()["bind"].rpartition(":")[2])
    family = tree.descendants()
    assert len(family) == 4
    tree.process.kill()
    tree.process.wait(20)
    tree.eventually(lambda: not any(map(tree.is_alive, family)), seconds=2)
    with socket.create_server(("127.0.0.1", port)):
        pass
    tree.start()  # The stale pidfile and control socket stop nobody.


def test_killed_zygote_takes_nobody_with_it_and_is_replaced(tree: Tree) -> None:
    tree.start()
    workers = tree.pids()
    (zygote,) = tree.zygotes()
    os.kill(zygote, signal.SIGKILL)
    tree.eventually(lambda: tree.zygotes() not in ([], [zygote]))
    assert tree.pids() == workers
    os.kill(workers[0], signal.SIGKILL)
    tree.eventually(lambda: len(p := tree.pids()) == 2 and workers[0] not in p)


def test_zygote_that_does_not_fork_is_replaced(tree: Tree) -> None:
    tree.configure(ready_seconds=4.0)
    tree.start()
    (zygote,) = tree.zygotes()
    os.kill(zygote, signal.SIGSTOP)
    victim = tree.pids()[0]
    os.kill(victim, signal.SIGKILL)
    tree.eventually(lambda: len(p := tree.pids()) == 2 and victim not in p)
    assert not tree.is_alive(zygote)


def test_worker_that_always_dies_young_backs_off(tree: Tree) -> None:
    tree.code(version=1, life_seconds=0.2)
    tree.configure(workers=1)
    tree.spawn()
    entry = tree.eventually(lambda: _worker_in(tree, "backoff"))
    assert entry["restarts"] >= 2
    assert "exit code 9" in entry["last_exit"]


def _worker_in(tree: Tree, state: str) -> dict[str, Any] | None:
    try:
        workers = tree.status()["workers"]
    except Exception:
        return None
    return next((worker for worker in workers if worker["state"] == state), None)


def test_worker_whose_loop_is_blocked_is_dumped_and_replaced(tree: Tree) -> None:
    tree.configure(hang_seconds=1.0)
    tree.start()
    before = tree.pids()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/block")
        tree.eventually(lambda: len(p := tree.pids()) == 2 and p != before)
    assert "its event loop was silent for 1 s" in tree.text()
    assert "in block" in tree.text()  # faulthandler's dump names the function that blocks


def test_stopped_worker_is_replaced(tree: Tree) -> None:
    tree.configure(hang_seconds=1.0)
    tree.start()
    victim = tree.pids()[0]
    os.kill(victim, signal.SIGSTOP)
    tree.eventually(lambda: not tree.is_alive(victim))
    tree.eventually(lambda: len(tree.pids()) == 2)
