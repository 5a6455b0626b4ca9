"""The supervisor as the first process of a container, without an init: a PID namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Tree

CONTAINER = ("unshare", "--user", "--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user")


def refusal() -> str | None:
    """Return why no PID namespace can be had here."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    done = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, timeout=20, check=False)
    return f"unshare is not permitted: {done.stderr.strip()}" if done.returncode else None


REFUSAL = refusal()
pytestmark = pytest.mark.skipif(REFUSAL is not None, reason=f"PID 1 is not tested: {REFUSAL}")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def first(tree: Tree) -> int:
    """Return the pid, out here, of the container's first process, once there is one."""
    assert tree.process is not None
    pid = tree.process.pid
    found: list[int] = tree.eventually(lambda: children(pid))
    return found[0]


def start(tree: Tree, *wrapper: str) -> int:
    tree.spawn(*CONTAINER, *wrapper)
    tree.eventually(lambda: tree.is_settled(1))
    return first(tree)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_is_the_first_process_and_does_what_it_does_elsewhere(tree: Tree) -> None:
    supervisor = start(tree)
    assert tree.status()["supervisor"]["pid"] == 1
    assert tree.get()["version"] == 1
    victim = children(supervisor)[-1]
    os.kill(victim, signal.SIGKILL)
    tree.eventually(lambda: not tree.is_alive(victim) and tree.is_settled(1))
    tree.code(version=2)
    assert tree.reload()["ok"] is True
    assert tree.get()["version"] == 2
    os.kill(supervisor, signal.SIGTERM)
    assert tree.process is not None
    assert tree.process.wait(20) == EXIT_OK
    assert not (tree.data / "supervisor.pid").exists()


def test_orphans_of_strangers_are_reaped_and_hold_nobody_up(tree: Tree) -> None:
    """What an exec in a container leaves behind: one ends well, one by a signal without a name, one never."""
    strangers = "(sleep 0.1 &); (sh -c 'sleep 0.1; kill -37 $$' &); (sleep 600 &); exec \"$@\""
    supervisor = start(tree, "sh", "-c", strangers, "sh")
    family = children(supervisor)
    tree.eventually(lambda: not [pid for pid in children(supervisor) if state(pid) == "Z"])
    assert len(children(supervisor)) == 5, f"zygote, two workers, indexer and a stranger, of {family}"
    os.kill(supervisor, signal.SIGTERM)
    assert tree.process is not None
    assert tree.process.wait(20) == EXIT_OK
    assert not any(map(tree.is_alive, family))


def test_stop_keeps_to_its_budget(tree: Tree) -> None:
    tree.configure(graceful_seconds=1.0)
    supervisor = start(tree)
    with closing(tree.connect()) as connection:
        connection.request("GET", "/?sleep=60")
        tree.eventually(lambda: any(worker["stats"].get("in_flight") for worker in tree.status()["workers"]))
        begun = time.monotonic()
        os.kill(supervisor, signal.SIGTERM)
        assert tree.process is not None
        assert tree.process.wait(20) == EXIT_OK
    assert time.monotonic() - begun < 10, "one second of grace, not the sixty that the request wants"


@pytest.mark.parametrize(
    ("server", "code", "expected"),
    [({"workerz": 1}, {}, EXIT_CONFIG), ({}, {"import_error": "broken at import"}, EXIT_CANNOT_START)],
)
def test_exit_code_is_the_containers(tree: Tree, server: dict[str, Any], code: dict[str, str], expected: int) -> None:
    tree.configure(**server)
    tree.code(version=1, **code)
    assert tree.spawn(*CONTAINER).wait(20) == expected


def test_signal_before_the_loop_runs_is_not_lost(tree: Tree) -> None:
    """The kernel drops, for the first process alone, what it has no handler for: so they are blocked until it has."""
    pipe = tree.directory / "server.log"
    os.mkfifo(pipe)
    tree.configure(log_file=str(pipe))
    tree.spawn(*CONTAINER)
    supervisor = first(tree)
    # It waits for somebody to read its log. SIGHUP, because unshare itself blocks SIGTERM for a moment.
    tree.eventually(lambda: blocks(supervisor, signal.SIGHUP))
    os.kill(supervisor, signal.SIGTERM)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb"):
        assert tree.process is not None
        assert tree.process.wait(20) == EXIT_OK


def blocks(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_pipe_that_nobody_reads_ends_nobody(tree: Tree) -> None:
    supervisor = start(tree)
    for number in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(supervisor, number)
    tree.eventually(lambda: tree.is_settled(1))
    os.kill(supervisor, signal.SIGINT)
    assert tree.process is not None
    assert tree.process.wait(20) == EXIT_OK
