"""kill -9 of anybody at any moment: the port answers again, or the supervisor says that it could not go on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Tree

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(8, 50))]
VICTIMS = ("rag-worker", "rag-indexer", "rag-zygote", "rag-supervisor")
LEFT_SECONDS = 5.0


def _booting(tree: Tree, held: ExitStack) -> None:
    tree.spawn()


def _serving(tree: Tree, held: ExitStack) -> None:
    tree.start()


def _reloading(tree: Tree, held: ExitStack) -> None:
    tree.start()
    tree.code(version=2)
    tree.send(signal.SIGHUP)


def _draining(tree: Tree, held: ExitStack) -> None:
    tree.start()
    connection = held.enter_context(closing(tree.connect()))
    connection.request("GET", "/?sleep=2")
    tree.eventually(lambda: any(w["stats"].get("in_flight") for w in tree.status()["workers"]))
    tree.send(signal.SIGTERM)


PHASES = [_booting, _serving, _reloading, _draining]


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_9_at_a_random_moment(tree: Tree, seed: int) -> None:
    chance = random.Random(seed)
    port = _fixed_port(tree)
    phase = PHASES[seed % len(PHASES)]
    with ExitStack() as held:
        phase(tree, held)
        _pause(chance.uniform(0, 1.2))
        victim = _kill_one(tree, chance)
        assert tree.process is not None
        if victim == "rag-supervisor" or phase is _draining:
            tree.process.wait(20)
            _assert_nothing_is_left(tree, port)
        else:
            tree.eventually(lambda: tree.process is not None and (tree.process.poll() or _answers(port)))
            _assert_whole_or_gone(tree, port)


def _fixed_port(tree: Tree) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    tree.configure(bind=f"127.0.0.1:{port}", ready_seconds=10.0)
    return port


def _pause(seconds: float) -> None:
    """Let chance choose the moment: nothing is waited for."""
    time.sleep(seconds)


def _kill_one(tree: Tree, chance: random.Random) -> str:
    """Kill one process of a kind chosen first, as workers outnumber the others; say which kind it was."""
    assert tree.process is not None
    family = {tree.process.pid: "rag-supervisor"}
    for pid in _descendants(tree):
        family[pid] = _name(pid)
    kinds = [kind for kind in VICTIMS if any(name.startswith(kind) for name in family.values())]
    kind = chance.choice(kinds)
    victim = chance.choice([pid for pid, name in family.items() if name.startswith(kind)])
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return kind


def _descendants(tree: Tree) -> list[int]:
    try:
        return tree.descendants()
    except FileNotFoundError:  # It ended by itself, which a draining one may.
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(65_536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _assert_whole_or_gone(tree: Tree, port: int) -> None:
    assert tree.process is not None
    if tree.process.poll() is not None:
        assert tree.process.returncode != EXIT_OK, tree.text()
        _assert_nothing_is_left(tree, port)
        return
    tree.eventually(lambda: any(tree.is_settled(release) for release in (1, 2)))
    tree.eventually(lambda: not _zombies(tree), LEFT_SECONDS)
    tree.code(version=3)
    reload = tree.reload()
    assert reload["ok"] is True, reload
    assert tree.get()["version"] == 3
    tree.eventually(lambda: len(tree.descendants()) == 4, LEFT_SECONDS)  # Two workers, the indexer, one zygote.


def _zombies(tree: Tree) -> list[int]:
    return [pid for pid in tree.descendants() if not tree.is_alive(pid)]


def _assert_nothing_is_left(tree: Tree, port: int) -> None:
    tree.eventually(lambda: not _of_this_tree(tree), LEFT_SECONDS)
    tree.eventually(lambda: _is_bindable(port), LEFT_SECONDS)


def _of_this_tree(tree: Tree) -> list[int]:
    """Every process that was started with this tree's config file, wherever it hangs by now."""
    mark = str(tree.config).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes() and tree.is_alive(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


def _is_bindable(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("rounds", [pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(1500)])])
def test_supervisor_grows_by_nothing(tree: Tree, rounds: int) -> None:
    """After many reloads, refused ones and deaths it holds as many descriptors, threads and pages as before."""
    chance = random.Random(rounds)
    tree.start()
    steps: list[Callable[[Tree], None]] = [_reload, _fail_to_reload, _lose("rag-worker"), _lose("rag-indexer")]
    steps.append(_lose("rag-zygote"))
    for step in steps:  # Once each before the first look, so that what is made once has been made.
        step(tree)
    before = _held(tree)
    for _ in range(rounds):
        chance.choice(steps)(tree)
    tree.eventually(lambda: _held(tree)[:2] == before[:2])
    assert _held(tree)[2] - before[2] < 4 * 2**20


def _reload(tree: Tree) -> None:
    tree.code(version=1)
    assert tree.reload()["ok"] is True


def _fail_to_reload(tree: Tree) -> None:
    tree.code(version=1, at_import="def broken(:")
    assert tree.reload()["ok"] is False
    tree.code(version=1)


def _lose(kind: str) -> Callable[[Tree], None]:
    def lose(tree: Tree) -> None:
        victim = tree.eventually(lambda: next((pid for pid in tree.descendants() if _name(pid).startswith(kind)), None))
        os.kill(victim, signal.SIGKILL)
        tree.eventually(lambda: victim not in tree.descendants())
        tree.eventually(lambda: _is_whole(tree), 60)  # Many deaths in a row: the backoff grows.

    return lose


def _is_whole(tree: Tree) -> bool:
    status = tree.status()
    members = [*status["workers"], status["indexer"]]
    return all(member["state"] == "running" for member in members) and len(tree.zygotes()) == 1


def _held(tree: Tree) -> tuple[int, int, int]:
    """Return the supervisor's open descriptors, threads and resident bytes."""
    assert tree.process is not None
    proc = Path(f"/proc/{tree.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return len(os.listdir(proc / "fd")), len(os.listdir(proc / "task")), pages * os.sysconf("SC_PAGE_SIZE")
