"""Processes that stop without dying, clients that do: what is stuck is replaced, what is slow is not, nobody waits."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Tree

GIL_HEAVY = "end = time.monotonic() + 3\nwhile time.monotonic() < end: sum(range(100_000))"
REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
FLOOD = REQUEST % b"/stream?count=50&padding=1000000"  # More than all the buffers on the way hold.
# Beside the budget and the mercy that are promised: what a machine may take that does ten other things.
SLOW_MACHINE_SECONDS = 5.0


def test_long_boot_that_holds_the_gil_is_not_taken_for_a_hang(tree: Tree) -> None:
    tree.configure(workers=1, hang_seconds=1.0, ready_seconds=30.0)
    tree.code(version=1, at_boot=GIL_HEAVY)
    tree.start()
    assert "hangs" not in tree.text()
    assert [worker["restarts"] for worker in tree.status()["workers"]] == [0]


def test_stopped_indexer_is_replaced(tree: Tree) -> None:
    tree.configure(hang_seconds=1.0)
    tree.start()
    (victim,) = tree.pids("indexer")
    os.kill(victim, signal.SIGSTOP)
    tree.eventually(lambda: tree.pids("indexer") not in ([], [victim]))
    assert not tree.is_alive(victim)


def test_old_worker_that_stops_while_it_drains_holds_up_no_reload(tree: Tree) -> None:
    tree.configure(graceful_seconds=1.0)
    tree.start()
    victim = tree.pids()[0]
    os.kill(victim, signal.SIGSTOP)
    tree.code(version=2)
    assert tree.reload()["ok"] is True
    assert not tree.is_alive(victim)
    assert tree.get()["version"] == 2


def test_worker_out_of_descriptors_recovers_when_clients_leave(tree: Tree) -> None:
    tree.configure(workers=1, keep_alive_seconds=30.0, graceful_seconds=2.0)
    tree.code(version=1, at_boot="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))")
    tree.start()
    address = _address(tree)
    with ExitStack() as held:
        for _ in range(80):
            held.enter_context(closing(socket.create_connection(address, timeout=20)))
        tree.eventually(lambda: "out of system resource" in tree.text())
        assert len(tree.descendants()) == 3  # The supervisor is as it was.
    tree.eventually(lambda: _answers(address))
    assert tree.reload()["ok"] is True


def _answers(address: tuple[str, int]) -> bool:
    with closing(socket.create_connection(address, timeout=5)) as client:
        client.sendall(REQUEST % b"/")
        try:
            return client.recv(65_536).startswith(b"HTTP/1.1 200")
        except (TimeoutError, ConnectionResetError):
            return False


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("said", "keep_alive"),
    [
        pytest.param(FLOOD, 30.0, id="a reader that does not read"),
        pytest.param(FLOOD, 0.2, id="a reader that does not read, after the time for idle ones"),
        pytest.param(REQUEST % b"/?sleep=60", 0.2, id="an answer that takes too long"),
        pytest.param(b"GET / HTTP/1.1\r\nHost:", 30.0, id="half a request"),
        pytest.param(b"", 30.0, id="nothing said"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 30.0, id="an HTTP/2 client that waits"),
    ],
)
def test_no_client_holds_a_stop_beyond_its_budget(
    tree: Tree, tmp_path: Path, held: ExitStack, said: bytes, keep_alive: float
) -> None:
    tree.configure(graceful_seconds=1.0, keep_alive_seconds=keep_alive)
    tree.start()
    workers = tree.pids()
    for _ in range(8):  # So that each worker has some.
        client = held.enter_context(closing(socket.create_connection(_address(tree), timeout=20)))
        client.sendall(said)
    tree.eventually(lambda: sum(w["stats"].get("connections", 0) for w in tree.status()["workers"]) >= 8)
    begun = time.monotonic()
    assert tree.stop() == EXIT_OK
    assert time.monotonic() - begun < 1 + 2 + SLOW_MACHINE_SECONDS
    assert "is killed" not in tree.text()
    assert sorted(map(int, (tmp_path / "shutdowns").read_text().split())) == sorted(workers)


def test_no_connection_is_forgotten_at_the_moment_of_a_stop(tree: Tree, held: ExitStack) -> None:
    """One that is accepted in the turn that closes the listener could hear nothing for as long as its worker lives.

    So the workers live on here, each with an answer that takes long, until a second SIGTERM.
    """
    tree.configure(graceful_seconds=60.0)
    tree.start()
    address = _address(tree)
    tree.eventually(lambda: _open(address, held, b"/?sleep=60") and _all_are_busy(tree))
    clients: list[socket.socket] = []
    opening = [threading.Thread(target=_open_until_refused, args=(address, held, clients)) for _ in range(4)]
    for thread in opening:
        thread.start()
    tree.eventually(lambda: len(clients) > 20)
    tree.send(signal.SIGTERM)
    for thread in opening:
        thread.join()
    for client in clients:
        try:
            answer = client.recv(65_536)  # A TimeoutError is what must not be.
        except ConnectionResetError:  # It was still in the queue when the last listener was closed.
            continue
        assert answer.startswith(b"HTTP/1.1 200")
    assert tree.stop() == EXIT_OK


def _all_are_busy(tree: Tree) -> bool:
    return all(worker["stats"].get("in_flight") for worker in tree.status()["workers"])


def _open_until_refused(address: tuple[str, int], held: ExitStack, clients: list[socket.socket]) -> None:
    for _ in range(2000):
        client = _open(address, held, b"/")
        if client is None:
            return
        clients.append(client)


def _open(address: tuple[str, int], held: ExitStack, path: bytes) -> socket.socket | None:
    """Return a connection with a request on its way; None when nobody takes it any more."""
    try:
        client = held.enter_context(closing(socket.create_connection(address, timeout=10)))
        client.sendall(REQUEST % path)
    except ConnectionError:
        return None
    return client


def _address(tree: Tree) -> tuple[str, int]:
    host, _, port = tree.status()["bind"].removeprefix("http://").rpartition(":")
    return host, int(port)
