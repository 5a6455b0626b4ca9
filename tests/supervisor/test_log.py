"""One line per event: on stderr, in a file that may be moved away under a running tree, and in memory."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK
from ragagent.supervisor import log
from ragagent.supervisor.control import request

if TYPE_CHECKING:
    from supervisor.conftest import Tree

PROGRAM = """
import logging
from ragagent.supervisor import log
from ragagent.supervisor.control import request
logging.basicConfig(format="something else: %(message)s")
log.configure("warning")
logging.getLogger("ragagent.supervisor").info("hidden")
logging.getLogger("ragagent.supervisor").warning("worker %d has ended.", 3)
"""


def test_line_has_time_level_name_and_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "WARNING" in line
    assert "ragagent.supervisor[" in line
    assert line.endswith("worker 3 has ended.")


def test_last_lines_are_kept_and_no_more() -> None:
    recent = log.Recent()
    logger = logging.Logger("ragagent.supervisor")
    logger.addHandler(recent)
    for number in range(log.RECENT_LINES + 500):
        logger.info("line %d", number)
    assert len(recent.lines()) == log.RECENT_LINES
    assert [line.rpartition(" ")[2] for line in recent.lines(2)] == ["1498", "1499"]
    assert recent.lines(0) == recent.lines(-1) == []
    logger.warning("a reason\nin two lines")
    assert recent.lines(1) == ["in two lines"]


# -- a file


def moved(tree: Tree, path: Path) -> Path:
    """Move the log away, tell the supervisor, and return where it went once the new one is there."""
    old = path.with_suffix(".1")
    path.rename(old)
    tree.send(signal.SIGUSR1)
    tree.eventually(lambda: path.exists() and "the log file is opened anew" in path.read_text())
    return old


@pytest.fixture
def path(tree: Tree, tmp_path: Path) -> Path:
    tree.configure(log_file="server.log")  # Relative: to the directory that the server is started in.
    return tmp_path / "server.log"


def test_log_goes_to_the_file_and_the_greeting_to_the_person(tree: Tree, path: Path) -> None:
    tree.start()
    tree.get("/say?text=hello")
    assert [line for line in tree.text().splitlines() if "ragagent.supervisor[" in line] == []
    assert "ready on http://127.0.0.1:" in tree.text()
    text = path.read_text()
    assert "Release 1 serves." in text
    assert "said: hello" in text
    assert "stdout has hello" in text
    assert "ready on" not in text
    assert path.stat().st_mode & 0o777 == 0o640 & ~umask()
    assert tree.stop() == EXIT_OK
    assert "exit code 0." in path.read_text().splitlines()[-1]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_log_is_appended_to(tree: Tree, path: Path) -> None:
    path.write_text("an older line\n")
    tree.start()
    assert tree.stop() == EXIT_OK
    assert path.read_text().startswith("an older line\n")


def test_file_that_cannot_be_opened_is_named(tree: Tree, tmp_path: Path) -> None:
    tree.configure(log_file=str(tmp_path / "missing" / "server.log"))
    assert tree.spawn().wait(20) == EXIT_CONFIG
    assert f"Log file '{tmp_path / 'missing' / 'server.log'}' cannot be opened: No such file" in tree.text()


def test_reason_of_a_failed_start_reaches_person_and_file(tree: Tree, path: Path) -> None:
    tree.code(version=1, import_error="broken at import")
    assert tree.spawn().wait(20) == EXIT_CANNOT_START
    assert "ragagent cannot start: RuntimeError: broken at import" in tree.text()
    assert "Traceback" in path.read_text()


def test_moved_log_is_followed_by_every_process(tree: Tree, path: Path) -> None:
    tree.start()
    old = moved(tree, path)
    size = old.stat().st_size

    first, second = tree.pids()
    tree.eventually(lambda: {tree.get("/say?text=hello")["pid"] for _ in range(20)} == {first, second})
    assert path.read_text().count("said: hello") >= 2
    os.kill(first, signal.SIGABRT)  # Its stacks are written by C code, to whatever descriptor 2 is.
    tree.eventually(lambda: len(pids := tree.pids()) == 2 and first not in pids)
    assert "Fatal Python error: Aborted" in path.read_text()
    newborn = next(pid for pid in tree.pids() if pid != second)
    tree.eventually(lambda: tree.get("/say?text=newborn")["pid"] == newborn)
    assert "said: newborn" in path.read_text()

    tree.code(version=2)
    assert tree.reload()["ok"] is True
    tree.get("/say?text=two")
    text = path.read_text()
    assert "the indexer leaves" in text
    assert "Release 2 serves." in text
    assert "said: two" in text
    assert tree.stop() == EXIT_OK
    assert old.stat().st_size == size


def test_log_moved_while_a_release_is_being_built_loses_nothing(tree: Tree, path: Path) -> None:
    tree.start()
    tree.code(version=2)
    numbers = itertools.count(2)
    tree.send(signal.SIGHUP)

    def is_settled_though_moved() -> bool:
        path.rename(path.with_suffix(f".{next(numbers)}"))
        tree.send(signal.SIGUSR1)
        tree.eventually(path.exists)
        return tree.is_settled(2)

    tree.eventually(is_settled_though_moved)
    old = moved(tree, path)
    size = old.stat().st_size
    tree.eventually(lambda: len({tree.get("/say?text=after")["pid"] for _ in range(20)}) == 2)
    (indexer,) = tree.pids("indexer")
    os.kill(indexer, signal.SIGTERM)
    tree.eventually(lambda: "the indexer leaves" in path.read_text())
    assert old.stat().st_size == size
    everything = "".join(file.read_text() for file in path.parent.glob("server.*"))
    assert "Traceback" not in everything
    assert tree.status()["supervisor"]["reloads"]["failed"] == 0


def test_log_that_cannot_be_opened_again_is_kept(tree: Tree, path: Path, tmp_path: Path) -> None:
    tree.start()
    old = tmp_path / "old.log"
    path.rename(old)
    path.mkdir()
    tree.send(signal.SIGUSR1)
    tree.eventually(lambda: "cannot be opened again, the old one is kept: Is a directory." in old.read_text())
    tree.get("/say?text=still")
    assert "said: still" in old.read_text()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_signal_to_the_whole_unit_ends_nobody(tree: Tree, number: signal.Signals) -> None:
    tree.start()
    family, workers = tree.descendants(), tree.pids()
    for pid in family:
        os.kill(pid, number)
    if number == signal.SIGUSR1:  # Without a file it means nothing to the supervisor either.
        tree.send(number)
    assert {tree.get()["pid"] for _ in range(10)} <= set(workers)
    assert tree.descendants() == family


def test_signals_do_not_end_a_release_that_loads(tree: Tree) -> None:
    """`systemctl kill -s USR1` goes to everyone in the unit, so also to an interpreter that has only just started."""
    tree.start()
    tree.code(version=2)
    before = set(tree.descendants())
    tree.send(signal.SIGHUP)

    def is_settled_though_disturbed() -> bool:
        for pid in set(tree.descendants()) - before:
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        return tree.is_settled(2)

    tree.eventually(is_settled_though_disturbed)
    assert tree.status()["supervisor"]["reloads"]["failed"] == 0


def test_log_is_followed_also_by_what_an_upgrade_has_made_of_the_supervisor(tree: Tree, path: Path) -> None:
    tree.start()
    tree.send(signal.SIGUSR2)
    tree.eventually(lambda: tree.is_settled(2))
    assert "The supervisor is upgraded: exec." in path.read_text()
    old = moved(tree, path)
    size = old.stat().st_size
    tree.get("/say?text=upgraded")
    assert "said: upgraded" in path.read_text()
    assert tree.stop() == EXIT_OK
    assert old.stat().st_size == size
    assert tree.text().count("ready on") == 1


def test_control_socket_tells_the_last_lines_and_where_all_are(tree: Tree, path: Path) -> None:
    tree.start()
    reply = request(tree.data, "logs", lines=2)
    assert (reply["ok"], reply["file"]) == (True, str(path))
    assert reply["lines"] == [line for line in path.read_text().splitlines() if "ragagent.supervisor[" in line][-2:]
    for wrong in (-1, "3", True):
        assert request(tree.data, "logs", lines=wrong)["ok"] is False


def test_without_a_file_the_control_socket_says_so(tree: Tree) -> None:
    tree.start()
    reply = request(tree.data, "logs")
    assert reply["file"] is None
    assert "loading config and code" in reply["lines"][0]
