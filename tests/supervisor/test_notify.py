"""The words to the service manager: what arrives on a real socket, and that nothing there can stop us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragagent.supervisor.notify import MAX_UNSENT, Notifier


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@ragagent-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    with manager.socket:
        yield manager


@pytest.fixture
def notifier(address: str, manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    yield notifier
    notifier.close()


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (Notifier.ready, "READY=1"),
        (Notifier.stopping, "STOPPING=1"),
        (Notifier.watchdog, "WATCHDOG=1"),
        (lambda notifier: notifier.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
        (lambda notifier: notifier.status("Release 2 serves."), "STATUS=Release 2 serves."),
    ],
)
def test_each_word_is_one_datagram(
    say: Callable[[Notifier], None], words: str, notifier: Notifier, manager: Manager
) -> None:
    say(notifier)
    assert manager.heard() == [words]


def test_reloading_carries_the_time_at_which_it_was_said(notifier: Notifier, manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    notifier.reloading()
    word, moment = manager.heard()[0].split("\n")
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000


def test_status_cannot_smuggle_in_another_word(notifier: Notifier, manager: Manager) -> None:
    notifier.status("Reload failed: no\nREADY=1")
    assert manager.heard() == ["STATUS=Reload failed: no READY=1"]


def test_full_queue_blocks_nobody_and_keeps_the_order(notifier: Notifier, manager: Manager) -> None:
    deadline = time.monotonic() + 10
    for number in range(2_000):
        notifier.status(str(number))
    notifier.reloading()
    notifier.ready()
    assert time.monotonic() < deadline
    heard: list[str] = []
    while more := manager.heard():
        heard += more
        notifier.flush()
    numbers = [int(word.removeprefix("STATUS=")) for word in heard if word.startswith("STATUS=")]
    assert numbers == sorted(numbers)
    assert numbers[-(MAX_UNSENT - 2) :] == list(range(2_000 - (MAX_UNSENT - 2), 2_000))
    assert heard[-1] == "READY=1"
    assert heard[-2].startswith("RELOADING=1")


def test_manager_that_is_away_is_no_reason_to_die(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    manager = Manager(address)
    with manager.socket:
        notifier.status("It is back.")
        assert manager.heard() == ["STATUS=It is back."]
    notifier.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", f"/{'x' * 200}"])
def test_without_a_socket_that_it_can_speak_to_it_does_nothing(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("Nobody hears this.")
    notifier.close()
    notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_ours_only_when_the_manager_says_so(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier.from_environment(environ).watchdog_seconds == seconds


def test_children_inherit_nothing_of_it() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from ragagent.supervisor.notify import Notifier\n"
        "Notifier.from_environment(os.environ)\n"
        "print(subprocess.check_output(['env'], text=True))"
    )
    environ = {**os.environ, "NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert "PATH=" in done.stdout
    assert "NOTIFY" not in done.stdout
    assert "WATCHDOG" not in done.stdout
