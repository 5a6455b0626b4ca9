"""Every bad release there is: the old one never knows, the reason is told, and the next good one is taken."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ragagent.errors import EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Load, Tree

MakeLoad = Callable[["Tree", int], "list[Load]"]

# What the code does → what the reload's reason says.
BAD_CODE = [
    ({"at_import": "def broken(:"}, "SyntaxError"),
    ({"at_import": "import no_such_module"}, "ModuleNotFoundError: No module named 'no_such_module'"),
    ({"at_import": "raise SystemExit(0)"}, "SystemExit"),
    ({"at_import": "time.sleep(60)"}, "it did not load within 2 s"),
    # As the kernel does when memory is out.
    ({"at_import": "os.kill(os.getpid(), 9)"}, "its zygote died: signal 9, SIGKILL"),
    ({"at_boot": "os.kill(os.getpid(), 9)"}, "signal 9, SIGKILL"),
    ({"at_boot": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30,) * 2); bytes(2**31)"}, "MemoryError"),
    ({"at_boot": "os._exit(0)"}, "exit code 0"),
    ({"at_boot": "time.sleep(60)"}, "it was not ready within 2 s"),
    ({"at_boot": "os.kill(os.getpid(), 19)"}, "it was not ready within 2 s"),
]

# What the file holds → what the reload's reason says.
BAD_CONFIG = [
    ("[server]\nworkers = -1", "'server.workers' has value '-1'"),
    ("[server]\nworkers = 'two'", "'server.workers'"),
    ("[sever]\nworkers = 2", "'sever'"),
    ("[server\nworkers = 2", "is not valid TOML"),
    ("\x00\x01", "is not valid TOML"),
]


def test_no_bad_release_touches_the_one_that_serves(tree: Tree, make_load: MakeLoad) -> None:
    tree.configure(ready_seconds=2.0)
    tree.start()
    before = tree.pids(), tree.pids("indexer")
    (load,) = make_load(tree, 1)
    for count, (code, reason) in enumerate(BAD_CODE, 1):
        tree.code(version=2, **code)
        _assert_refused(tree, count, reason)
    tree.code(version=2)
    good = tree.config.read_text()
    for count, (text, reason) in enumerate(BAD_CONFIG, len(BAD_CODE) + 1):
        tree.config.write_text(text)
        _assert_refused(tree, count, reason)
    load.finish()
    assert load.failures == []
    assert {answer["version"] for answer in load.answers} == {1}
    assert (tree.pids(), tree.pids("indexer")) == before
    tree.config.write_text(good)
    assert tree.reload()["ok"] is True
    assert tree.get()["version"] == 2
    assert len(tree.descendants()) == 4  # Nothing of the others is left.


def _assert_refused(tree: Tree, count: int, reason: str) -> None:
    reply = tree.reload()
    assert reply["ok"] is False, reason
    assert reason in reply["reason"]
    reloads = tree.status()["supervisor"]["reloads"]
    assert (reloads["ok"], reloads["failed"]) == (0, count), reason
    assert reason in reloads["last_error"]


@pytest.mark.parametrize("loss", ["removed", "a directory in its place"])
def test_config_file_that_cannot_be_read_is_named(tree: Tree, loss: str) -> None:
    tree.start()
    before, good = tree.pids(), tree.config.read_text()
    tree.config.unlink()
    if loss != "removed":
        tree.config.mkdir()
    _assert_refused(tree, 1, f"Config file '{tree.config}' cannot be read")
    assert tree.pids() == before
    if loss != "removed":
        tree.config.rmdir()
    tree.config.write_text(good)
    assert tree.reload()["ok"] is True


def test_release_whose_second_worker_fails_never_serves(tree: Tree) -> None:
    """A fleet is never mixed: until all of them can serve, none of them does."""
    tree.start()
    tree.code(version=2, at_boot="if slot == 1: time.sleep(1); raise RuntimeError('no room for two')")
    replies: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: replies.append(tree.reload()))
    asking.start()
    versions = []
    while asking.is_alive():
        versions.append(tree.get()["version"])  # Over a new connection, which any worker may take.
    assert set(versions) == {1}
    assert len(versions) > 20
    assert replies[0]["ok"] is False
    assert "worker 1 of release 2 did not start: RuntimeError: no room for two" in replies[0]["reason"]


def test_stop_during_a_reload_ends_both_releases(tree: Tree) -> None:
    tree.start()
    tree.code(version=2, at_boot="time.sleep(60)")
    replies: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: replies.append(tree.reload()))
    asking.start()
    tree.eventually(lambda: any(worker["release"] == 2 for worker in tree.status()["workers"]))
    family = tree.descendants()
    assert tree.stop() == EXIT_OK
    asking.join(20)
    assert [reply["ok"] for reply in replies] == [False]
    assert "stop" in replies[0]["reason"]
    assert not any(map(tree.is_alive, family))


def test_stop_during_the_first_boot_is_clean(tree: Tree) -> None:
    tree.code(version=1, at_boot="time.sleep(60)")
    tree.spawn()
    tree.eventually(lambda: (s := tree.status_or_none()) and any(worker["pid"] for worker in s["workers"]))
    family = tree.descendants()
    assert tree.stop() == EXIT_OK
    assert not any(map(tree.is_alive, family))


def test_hangups_while_it_stops_are_too_late(tree: Tree) -> None:
    tree.start()
    connection = tree.connect()
    connection.request("GET", "/?sleep=1")
    tree.eventually(lambda: any(w["stats"].get("in_flight") for w in tree.status()["workers"]))
    tree.send(signal.SIGTERM)
    tree.eventually(lambda: tree.status()["supervisor"]["state"] == "stopping")
    tree.send(signal.SIGHUP)
    assert connection.getresponse().status == 200
    connection.close()
    assert tree.stop() == EXIT_OK
    assert tree.text().count("loading config and code") == 1
