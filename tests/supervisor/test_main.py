"""The command itself: what it refuses, what it leaves behind, and with which exit code."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK

if TYPE_CHECKING:
    from supervisor.conftest import Tree


def test_second_instance_is_refused_by_name(tree: Tree) -> None:
    tree.start()
    first = tree.process
    assert first is not None
    second = tree.spawn()
    assert second.wait(20) == EXIT_CONFIG
    assert f"pid {first.pid}" in tree.text()
    tree.process = first
    assert tree.is_settled(1)


def test_port_that_is_taken_is_named(tree: Tree) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tree.configure(bind=f"127.0.0.1:{taken.getsockname()[1]}")
        assert tree.spawn().wait(20) == EXIT_CONFIG
        assert f"Cannot listen on 127.0.0.1:{taken.getsockname()[1]}: Address already in use." in tree.text()


def test_first_boot_with_an_unknown_key_exits_as_a_config_error(tree: Tree) -> None:
    tree.configure(workerz=3)
    assert tree.spawn().wait(20) == EXIT_CONFIG
    assert "server.workerz" in tree.text()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"import_error": "broken at import"}, "broken at import"),
        ({"lifespan_error": "index is gone"}, "index is gone"),
    ],
)
def test_first_boot_of_broken_code_says_why_and_does_not_loop(tree: Tree, code: dict[str, str], reason: str) -> None:
    tree.code(version=1, **code)
    assert tree.spawn().wait(20) == EXIT_CANNOT_START
    assert "ragagent cannot start:" in tree.text()
    assert reason in tree.text()
    assert tree.text().count("loading config and code") == 1


def test_stop_leaves_no_file_behind(tree: Tree) -> None:
    tree.start()
    family = tree.descendants()
    assert tree.stop() == EXIT_OK
    assert not (tree.data / "supervisor.pid").exists()
    assert not (tree.data / "control.sock").exists()
    assert not any(map(tree.is_alive, family))


def test_supervisor_stays_one_thread(tree: Tree) -> None:
    tree.start()
    assert tree.reload()["ok"] is True
    assert tree.process is not None
    assert len(os.listdir(f"/proc/{tree.process.pid}/task")) == 1


def test_data_directory_that_cannot_be_made_is_named(tree: Tree) -> None:
    tree.data = tree.config / "data"  # Below a file.
    assert tree.spawn().wait(20) == EXIT_CONFIG
    assert f"Data directory '{tree.data}' cannot be created: Not a directory." in tree.text()
