"""Handles on other processes: what a lifeline delivers, whose pid is whose, how an end is told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from ragagent.supervisor.process import Child, ZygoteProcess, described, is_child


def test_words_are_read_whole_and_the_end_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    child = Child(ours)
    assert child.read() == []
    theirs.sendall(b'{"state": "ready"}\n{"beat"')
    assert child.read() == [{"state": "ready"}]
    theirs.sendall(b": {}}\n")
    theirs.close()
    assert child.read() == [{"beat": {}}]
    assert child.at_end
    child.order("serve")  # To a dead child: no error.
    child.close()


def test_more_than_one_read_holds_is_delivered() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        for number in range(1_000):
            theirs.sendall(b'{"beat": {"number": %d}}\n' % number)
        child = Child(ours)
        assert len(child.read()) == 1_000
        child.close()


def test_only_our_own_children_are_believed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_child(child.pid)
    child.communicate(b"\n")
    assert not is_child(child.pid)
    assert not is_child(os.getppid())


def test_end_is_told_in_words() -> None:
    for code, expected in (("import sys; sys.exit(7)", ("exit code 7", 7)), ("import os; os.abort()", None)):
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
        _, status = os.waitpid(pid, 0)
        assert described(status) == (expected or ("signal 6, SIGABRT", None))


def test_end_by_a_real_time_signal_is_told_too() -> None:
    assert described(signal.SIGRTMIN + 3) == ("signal 37, SIGRTMIN+3", None)


def test_log_is_reopened_also_by_a_child_that_was_being_born() -> None:
    program = (
        "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))\nprint(flush=True)\nsignal.pause()"
    )
    ours, theirs = socket.socketpair()
    child = Child(ours)
    child.reopen_log()
    with theirs, subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child.born(process.pid)
        assert process.wait(20) == 5
    child.close()


def test_zygote_that_cannot_load_says_why_and_closed_descriptors_stay_closed() -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    zygote = ZygoteProcess.spawn([], ["--worker-module", "no.such.module", "--indexer-module", "json"])
    said = None
    deadline = time.monotonic() + 20
    while said is None and time.monotonic() < deadline:
        said = zygote.read()
        time.sleep(0.01)
    assert said is not None
    assert said["failed"].startswith("ModuleNotFoundError: No module named 'no'")
    assert zygote.pid is not None
    os.waitpid(zygote.pid, 0)
    zygote.pid = None
    zygote.kill()
    os.close(secret)


def test_zygote_inherits_only_what_it_is_given() -> None:
    kept_back = os.open("/dev/null", os.O_RDONLY)
    with socket.socket() as listener:
        zygote = ZygoteProcess.spawn([listener], ["--worker-module", "json", "--indexer-module", "json"])
        deadline = time.monotonic() + 20
        while zygote.read() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        inherited = {int(fd) for fd in os.listdir(f"/proc/{zygote.pid}/fd")}
        assert listener.fileno() in inherited
        assert kept_back not in inherited
        assert zygote.pid is not None
        os.kill(zygote.pid, signal.SIGTERM)  # It holds nothing, and dies of it like any other process.
        os.waitpid(zygote.pid, 0)
        zygote.pid = None
        zygote.kill()
    os.close(kept_back)
