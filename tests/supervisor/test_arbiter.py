"""The whole tree as its operator meets it: boot, reload, scale and stop, with real processes and signals."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ragagent.errors import EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Load, Tree

MakeLoad = Callable[["Tree", int], "list[Load]"]


def test_boot_makes_every_worker_answer(tree: Tree) -> None:
    tree.start()
    pids = set(tree.pids())
    assert len(pids) == 2
    tree.eventually(lambda: {tree.get()["pid"] for _ in range(20)} == pids)
    assert "ready on http://127.0.0.1:" in tree.text()


def test_reload_under_load_loses_no_request(tree: Tree, make_load: MakeLoad) -> None:
    tree.start()
    loads = make_load(tree, 4)
    for version in (2, 3):
        tree.code(version=version)
        tree.send(signal.SIGHUP)
        tree.eventually(partial(tree.is_settled, version))
    for load in loads:
        load.finish()
    answers = [answer for load in loads for answer in load.answers]
    assert [load.failures for load in loads] == [[], [], [], []]
    assert {answer["version"] for answer in answers} == {1, 2, 3}
    assert tree.get()["version"] == 3


def test_reload_command_answers_when_only_the_new_release_is_left(tree: Tree) -> None:
    tree.start()
    old = tree.pids()
    tree.configure(extra="[cache]\nlocal_bytes = 1024")
    tree.code(version=2)
    reply = tree.reload()
    assert reply == {"ok": True, "reason": None, "changes": {"cache.local_bytes": "rolls"}, "release": 2}
    assert not any(map(tree.is_alive, old))
    assert tree.get()["version"] == 2


@pytest.mark.parametrize(
    ("code", "config", "reason"),
    [
        ({"import_error": "broken at import"}, {}, "RuntimeError: broken at import"),
        ({"lifespan_error": "index is gone"}, {}, "RuntimeError: index is gone"),
        ({"prepare_error": "no such model"}, {}, "no such model"),
        ({"startup_seconds": 30}, {"ready_seconds": 3.0}, "it was not ready within 3 s"),
        ({}, {"workerz": 1}, "Unknown config key 'server.workerz'"),
        ({}, {"bind": "127.0.0.1:1"}, "server.bind changed, which needs a restart"),
    ],
)
def test_bad_reload_keeps_the_old_release_and_a_good_one_follows(
    tree: Tree, code: dict[str, Any], config: dict[str, Any], reason: str
) -> None:
    tree.start()
    before = tree.pids()
    tree.code(version=2, **code)
    tree.configure(**config)
    reply = tree.reload()
    assert reply["ok"] is False
    assert reason in reply["reason"]
    assert "\n" not in reply["reason"]
    assert tree.pids() == before
    assert tree.get()["version"] == 1
    assert reason in tree.status()["supervisor"]["reloads"]["last_error"]
    tree.code(version=3)
    tree.configure()
    assert tree.reload()["ok"] is True
    assert tree.get()["version"] == 3
    reloads = tree.status()["supervisor"]["reloads"]
    assert (reloads["ok"], reloads["failed"]) == (1, 1)


def test_slow_new_release_delays_nobody(tree: Tree, make_load: MakeLoad) -> None:
    tree.start()
    (load,) = make_load(tree, 1)
    tree.code(version=2, startup_seconds=1.0)
    assert tree.reload()["ok"] is True
    load.finish()
    assert load.failures == []
    versions = [answer["version"] for answer in load.answers]
    # While two new workers took a second each to start, the old ones went on answering.
    assert versions.count(1) > 200


def test_storm_of_hangups_is_one_more_reload(tree: Tree) -> None:
    tree.start()
    for _ in range(20):
        tree.send(signal.SIGHUP)
        time.sleep(0.01)
    reloads = tree.eventually(lambda: (r := tree.status()["supervisor"]["reloads"])["ok"] >= 1 and r)
    tree.eventually(lambda: tree.is_settled(1 + tree.status()["supervisor"]["reloads"]["ok"]))
    assert reloads["failed"] == 0
    assert tree.status()["supervisor"]["reloads"]["ok"] <= 3


def test_exactly_one_indexer_writes_across_a_reload(tree: Tree) -> None:
    tree.start()
    (first,) = tree.pids("indexer")
    assert tree.reload()["ok"] is True
    tree.eventually(lambda: tree.is_settled(2))
    (second,) = tree.pids("indexer")
    assert (tree.data / "WRITER").read_text().split() == [str(first), str(second)]


def test_worker_count_follows_the_config(tree: Tree) -> None:
    tree.start()
    tree.configure(workers=3)
    assert tree.reload()["ok"] is True
    assert len(tree.pids()) == 3
    tree.send(signal.SIGTTOU)
    tree.eventually(lambda: len(tree.status()["workers"]) == 2)
    tree.send(signal.SIGTTIN)
    tree.eventually(lambda: len(tree.pids()) == 3)


def test_stop_completes_a_stream_in_progress(tree: Tree) -> None:
    tree.start()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/stream?count=20")
        response = connection.getresponse()
        assert response.read(9) == b"data: 0\n\n"
        tree.send(signal.SIGTERM)
        assert response.read().endswith(b"data: 19\n\ndata: [DONE]\n\n")
    assert tree.stop() == EXIT_OK


def test_stop_refuses_new_clients_at_once(tree: Tree) -> None:
    tree.start()
    late = tree.connect()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/stream?count=20")
        response = connection.getresponse()
        assert response.read(9) == b"data: 0\n\n"
        tree.send(signal.SIGTERM)
        tree.eventually(lambda: _is_refused(late.host, late.port), seconds=2)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert tree.stop() == EXIT_OK


def _is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_stop_is_bounded_and_still_ends_every_application(tree: Tree, tmp_path: Path) -> None:
    tree.configure(graceful_seconds=1.0)
    tree.start()
    workers = tree.pids()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/?sleep=60")
        tree.eventually(lambda: any(w["stats"].get("in_flight") for w in tree.status()["workers"]))
        begun = time.monotonic()
        assert tree.stop() == EXIT_OK
        assert time.monotonic() - begun < 1 + 2 + 5  # the budget, the mercy, and a slow machine
    assert sorted(map(int, (tmp_path / "shutdowns").read_text().split())) == sorted(workers)


def test_second_sigterm_stops_at_once(tree: Tree) -> None:
    tree.configure(graceful_seconds=60.0, keep_alive_seconds=60.0)
    tree.start()
    family = tree.descendants()
    with closing(tree.connect()) as connection:
        connection.request("GET", "/?sleep=60")
        tree.eventually(lambda: any(w["stats"].get("in_flight") for w in tree.status()["workers"]))
        tree.send(signal.SIGTERM)
        tree.eventually(lambda: tree.status()["supervisor"]["state"] == "stopping")
        assert tree.stop(signal.SIGINT) == EXIT_OK
    assert not any(map(tree.is_alive, family))


def test_hangup_to_the_whole_group_hurts_no_child(tree: Tree) -> None:
    tree.start()
    for pid in [*tree.pids(), *tree.pids("indexer"), *tree.zygotes()]:
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert tree.is_settled(1)
    assert tree.get() is not None
