"""The control socket, from both ends."""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.errors import Unavailable
from ragagent.supervisor.control import MAX_LINE_BYTES, Control, request

if TYPE_CHECKING:
    from supervisor.conftest import Tree


def test_only_the_supervisors_user_may_use_the_control_socket(tree: Tree) -> None:
    tree.start()
    assert stat.S_IMODE(os.stat(tree.data).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tree.data / "control.sock").st_mode) == 0o600


def test_nonsense_on_the_control_socket_is_answered(tree: Tree) -> None:
    tree.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        fd = os.open(tree.data, os.O_PATH)
        client.connect(f"/proc/self/fd/{fd}/control.sock")
        os.close(fd)
        with client.makefile("rb") as replies:
            for line, word in [(b"{nope", "JSON"), (b"[1]", "JSON"), (b'{"command": "dance"}', "dance")]:
                client.sendall(line + b"\n")
                reply = json.loads(replies.readline())
                assert reply["ok"] is False
                assert word in reply["reason"]
    assert tree.is_settled(1)


def test_request_says_when_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No supervisor answers on"):
        request(tmp_path, "status")


def test_request_reaches_a_socket_whose_name_is_too_long_for_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with selectors.DefaultSelector() as selector:
        control = Control(deep, selector, lambda asked, client: client.reply({"ok": True, "asked": asked["command"]}))
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(request, deep, "status", 10)
            while not reply.done():
                for key, _ in selector.select(0.01):
                    key.data()
        assert reply.result() == {"ok": True, "asked": "status"}
        control.close()
    assert not (deep / "control.sock").exists()


def test_a_reply_too_large_for_the_socket_arrives_whole(tmp_path: Path) -> None:
    large = {"ok": True, "lines": ["x" * 100] * 50_000}
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor(1) as pool:
        control = Control(tmp_path, selector, lambda asked, client: client.reply(large))
        replies = [pool.submit(request, tmp_path, "logs", 20) for _ in range(2)]
        while not all(reply.done() for reply in replies):
            for key, _ in selector.select(0.01):
                key.data()
        assert [reply.result() for reply in replies] == [large, large]
        control.close()


def test_client_that_never_ends_its_line_is_dropped(tmp_path: Path) -> None:
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as client:
        control = Control(tmp_path, selector, lambda asked, client: None)
        client.setblocking(False)
        fd = os.open(tmp_path, os.O_PATH)
        client.connect(f"/proc/self/fd/{fd}/control.sock")
        os.close(fd)
        sent = 0
        while sent <= 16 * MAX_LINE_BYTES:
            for key, _ in selector.select(0):
                key.data()
            try:
                sent += client.send(b"x" * 4096)
            except BlockingIOError:
                continue
            except OSError:
                break
        assert 0 < sent <= 16 * MAX_LINE_BYTES
        control.close()
