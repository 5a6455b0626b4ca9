"""The parser process: limited, replaced when it dies, gone when its owner is."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ragagent.engine.indexing.parsing import frames, process
from ragagent.engine.indexing.parsing.parsed import Unparsable
from ragagent.engine.indexing.parsing.process import ParserProcess

MIB = 1024 * 1024
# Its attributes are compared pair by pair: minutes of work in a few hundred kilobytes.
SLOW = b"<p " + b"".join(b"a%d=1 " % number for number in range(300_000)) + b">x</p>"
# Every empty list is an object: far more memory than bytes.
LARGE = b"[" + b"[]," * 6_000_000 + b"1]"


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _wait_busy(pid: int) -> None:
    began, deadline = _cpu_ticks(pid), time.monotonic() + 10.0
    while _cpu_ticks(pid) < began + 5:
        assert time.monotonic() < deadline, f"process {pid} does not work"
        time.sleep(0.01)


@pytest.fixture
def parser() -> Iterator[ParserProcess]:
    parser = ParserProcess(seconds=20.0, memory_bytes=512 * MIB, max_chars=1_000_000)
    yield parser
    parser.close()


def _pid(parser: ParserProcess) -> int:
    assert parser.pid is not None
    return parser.pid


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_dead(pid: int) -> None:
    deadline = time.monotonic() + 10.0
    while _is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still alive"
        time.sleep(0.01)


def test_it_starts_when_needed_and_is_reused(parser: ParserProcess) -> None:
    assert parser.pid is None
    assert parser.parse("a.md", "# 标题\n".encode()).title == "标题"
    first = _pid(parser)
    assert parser.parse("a.txt", b"text").text == "text"
    assert parser.pid == first


def test_refusals_come_back_as_they_were_raised(parser: ParserProcess) -> None:
    with pytest.raises(Unparsable, match=r"\.exe cannot be read") as raised:
        parser.parse("a.exe", b"\0")
    assert raised.value.code == "unsupported_file"
    assert parser.parse("a.txt", b"next").text == "next"


def test_a_slow_document_fails_alone() -> None:
    parser = ParserProcess(seconds=1.0, memory_bytes=512 * MIB, max_chars=1_000_000)
    parser.parse("a.txt", b"text")
    first = _pid(parser)
    with pytest.raises(Unparsable, match="needed more than 1 s to parse") as raised:
        parser.parse("a.html", SLOW)
    assert raised.value.code == "server_error"
    assert not _is_alive(first)
    assert parser.parse("a.txt", b"next").text == "next"
    parser.close()


def test_a_large_document_fails_alone() -> None:
    parser = ParserProcess(seconds=20.0, memory_bytes=128 * MIB, max_chars=1_000_000)
    with pytest.raises(Unparsable, match="needed more than 128 MiB to parse") as raised:
        parser.parse("a.json", LARGE)
    assert raised.value.code == "server_error"
    assert parser.parse("a.txt", b"next").text == "next"
    parser.close()


def test_a_crash_fails_its_document_alone(parser: ParserProcess) -> None:
    parser.parse("a.txt", b"text")
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(parser.parse, "a.html", SLOW)
        _wait_busy(_pid(parser))  # had it died before the document came, it would be replaced unnoticed
        os.kill(_pid(parser), signal.SIGSEGV)
        with pytest.raises(Unparsable, match=r"made the parser process die \(SIGSEGV\)"):
            slow.result(20.0)
    assert parser.parse("a.txt", b"next").text == "next"


@pytest.mark.parametrize("kills", [1, 2])
def test_a_process_that_is_killed_once_costs_no_document(
    parser: ParserProcess, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    real, left = frames.send, [True] * kills

    def killing(*arguments: Any, **named: Any) -> None:
        if left:
            left.pop()
            os.kill(_pid(parser), signal.SIGKILL)
        real(*arguments, **named)

    monkeypatch.setattr(frames, "send", killing)
    if kills == 1:
        assert parser.parse("a.txt", b"text").text == "text"
        return
    with pytest.raises(Unparsable, match=r"made the parser process die \(SIGKILL\)"):
        parser.parse("a.txt", b"text")
    assert parser.parse("a.txt", b"next").text == "next"


def test_a_process_that_died_between_documents_is_replaced_unnoticed(parser: ParserProcess) -> None:
    parser.parse("a.txt", b"text")
    os.kill(_pid(parser), signal.SIGKILL)
    _wait_dead(_pid(parser))
    assert parser.parse("a.txt", b"next").text == "next"


def test_it_is_limited_and_inherits_nothing(parser: ParserProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGAGENT_SECRET", "hush")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    parser.parse("a.txt", b"text")
    proc = Path(f"/proc/{_pid(parser)}")
    limits = {line[:26].strip(): line[26:].split()[0] for line in (proc / "limits").read_text().splitlines()[1:]}
    assert limits["Max address space"] == str(512 * MIB)
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"
    assert int(limits["Max open files"]) <= 32
    assert limits["Max cpu time"].isdecimal()
    assert b"hush" not in (proc / "environ").read_bytes()
    assert len(list((proc / "fd").iterdir())) == 4  # null, null, null and its socket
    os.close(reading)
    os.close(writing)


# Prints whether a listener on loopback answers, before and after.
CONNECTS = """
import os, socket, sys
from ragagent.engine.indexing.parsing import child
def answers():
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
    except OSError:
        return False
    return True
answers()  # What is imported for it may be root's alone to read.
if os.getuid() == 0 and int(sys.argv[2]):
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(answers(), child.leave_network(), answers())
"""


@pytest.mark.parametrize("user", [0, 65534])
def test_nothing_answers_without_a_network(user: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", CONNECTS, str(listener.getsockname()[1]), str(user)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    if said[1] == "False":
        pytest.skip("this kernel lets this user have no namespaces")
    assert said == ["True", "True", "False"]


def test_it_has_no_network(parser: ParserProcess) -> None:
    parser.parse("a.txt", b"text")
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in (os.getpid(), _pid(parser))}
    if len(networks) == 1:
        pytest.skip("this kernel lets this user have no namespaces")
    routes = Path(f"/proc/{_pid(parser)}/net/route").read_text().splitlines()
    assert routes[1:] == []


def test_a_parser_that_has_a_network_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "_warn_of_network", functools.cache(process._warn_of_network.__wrapped__))
    for _ in range(2):
        process._warn_of_network()
    assert [record.getMessage()[:56] for record in caplog.records] == [
        "the parser could not be cut off from the network: the ke"
    ]


def test_it_survives_the_end_of_the_thread_that_first_asked(parser: ParserProcess) -> None:
    """The kernel sends PDEATHSIG when the thread that forked ends, not the process."""
    asking = threading.Thread(target=parser.parse, args=("a.txt", b"text"))
    asking.start()
    asking.join()
    first = _pid(parser)
    assert parser.parse("a.txt", b"next").text == "next"
    assert parser.pid == first


def test_it_ignores_the_terminals_interrupt(parser: ParserProcess) -> None:
    parser.parse("a.txt", b"text")
    first = _pid(parser)
    os.kill(first, signal.SIGINT)
    os.kill(first, signal.SIGTERM)
    assert parser.parse("a.txt", b"next").text == "next"
    assert parser.pid == first


def test_many_threads_may_share_it(parser: ParserProcess) -> None:
    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(lambda n: parser.parse("a.txt", b"text %d" % n).text, range(64)))
    assert texts == [f"text {number}" for number in range(64)]


def test_it_dies_with_its_owner() -> None:
    code = (
        "from ragagent.engine.indexing.parsing.process import ParserProcess\n"
        "import time\n"
        f"parser = ParserProcess(seconds=60.0, memory_bytes={512 * MIB}, max_chars=1000)\n"
        "parser.parse('a.txt', b'text')\n"
        "print(parser.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert _is_alive(child)
        owner.kill()
    _wait_dead(child)


def test_close_ends_it(parser: ParserProcess) -> None:
    parser.parse("a.txt", b"text")
    child = _pid(parser)
    parser.close()
    assert not _is_alive(child)
