"""Listeners: bound, named, refused, and taken over from systemd."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragagent.config import Server
from ragagent.errors import EXIT_CONFIG, EXIT_OK, ConfigError
from ragagent.supervisor import sockets
from supervisor.conftest import APPS

if TYPE_CHECKING:
    from supervisor.conftest import Tree


def test_listener_answers_where_its_url_says() -> None:
    (listener,) = sockets.listen(Server(bind="127.0.0.1:0"))
    with listener:
        host, _, port = sockets.url(listener).removeprefix("http://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_listener_has_no_delay_and_says_that_it_is_tcp() -> None:
    (listener,) = sockets.listen(Server(bind="127.0.0.1:0"))
    with listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert not listener.get_inheritable()


def test_name_is_resolved() -> None:
    (listener,) = sockets.listen(Server(bind="localhost:0"))
    with listener:
        assert sockets.url(listener).startswith("http://127.0.0.1:")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_ipv6_is_written_in_brackets() -> None:
    try:
        (listener,) = sockets.listen(Server(bind="[::1]:0"))
    except ConfigError:
        pytest.skip("no IPv6 loopback on this machine")
    with listener:
        assert sockets.url(listener).startswith("http://[::1]:")


def test_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Cannot listen on 127.0.0.1:{port}: Address already in use."):
            sockets.listen(Server(bind=f"127.0.0.1:{port}"))


def test_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Cannot listen on no-such-host\.invalid:80: "):
        sockets.listen(Server(bind="no-such-host.invalid:80"))


# -- what systemd hands over


def spawn(tree: Tree, *listeners: socket.socket, pid: str = "self") -> subprocess.Popen[bytes]:
    """Start the tree as a socket unit would, with `listeners` from descriptor 3 on."""
    fds = [listener.fileno() for listener in listeners]
    handed = [sys.executable, str(APPS / "handed.py"), pid, ",".join(map(str, fds))]
    return tree.spawn(*handed, pass_fds=fds)


def listening(host: str = "127.0.0.1") -> socket.socket:
    """Return what `ListenStream=` makes: a blocking, inheritable listener without TCP_NODELAY."""
    return socket.create_server((host, 0))


def test_socket_of_systemd_is_served_and_outlives_the_server(tree: Tree) -> None:
    tree.configure(bind="127.0.0.1:1")  # Nobody could bind this port here, and nobody tries.
    with listening() as listener:
        port = listener.getsockname()[1]
        spawn(tree, listener)
        tree.eventually(lambda: tree.is_settled(1))
        assert tree.status()["bind"] == f"http://127.0.0.1:{port}"
        assert f"ready on http://127.0.0.1:{port}" in tree.text()
        assert tree.get()["version"] == 1
        tree.code(version=2)
        assert tree.reload()["ok"] is True
        assert tree.get()["version"] == 2
        assert tree.stop() == EXIT_OK
        # It is systemd's: who connects now waits for the next start.
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            listener.accept()[0].close()


def test_several_sockets_are_all_served(tree: Tree) -> None:
    with listening() as one, listening() as other:
        spawn(tree, one, other)
        tree.eventually(lambda: tree.is_settled(1))
        for listener in (one, other):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with urllib.request.urlopen(url, timeout=20) as reply:
                assert json.load(reply)["version"] == 1
        assert tree.stop() == EXIT_OK


def test_children_inherit_no_variable_and_only_the_workers_a_listener(tree: Tree) -> None:
    with listening() as listener:
        inode = os.readlink(f"/proc/self/fd/{listener.fileno()}")
        spawn(tree, listener)
        tree.eventually(lambda: tree.is_settled(1))
        for pid in tree.descendants():
            assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()
        (indexer,) = tree.pids("indexer")
        assert inode not in links(indexer)
        assert all(links(worker).count(inode) for worker in tree.pids())
        assert tree.stop() == EXIT_OK


def links(pid: int) -> list[str]:
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_sockets_that_are_another_processes_are_left_alone(tree: Tree) -> None:
    with listening() as listener:
        spawn(tree, listener, pid="1")
        tree.eventually(lambda: tree.is_settled(1))
        assert tree.status()["bind"] != f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert tree.stop() == EXIT_OK


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1:0", "0.0.0.0"), ("0.0.0.0:0", "127.0.0.1")])
def test_socket_that_belies_what_bind_says_of_loopback_is_refused(tree: Tree, bind: str, host: str) -> None:
    tree.configure(bind=bind)
    with listening(host) as listener:
        assert spawn(tree, listener).wait(20) == EXIT_CONFIG
    assert f"Descriptor 3 (http0) from LISTEN_FDS listens on {host}, but server.bind is {bind}" in tree.text()
    assert "loading config and code" not in tree.text()


def test_socket_that_is_no_tcp_listener_is_refused(tree: Tree) -> None:
    with listening() as good, socket.socket() as deaf, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for bad in (deaf, datagrams):
            assert spawn(tree, good, bad).wait(20) == EXIT_CONFIG
    assert tree.text().count("Descriptor 4 (http1) from LISTEN_FDS is not a listening TCP socket") == 2


def test_taken_listener_is_made_like_ours() -> None:
    program = (
        "import os, socket\n"
        "from ragagent.config import Server\n"
        "from ragagent.supervisor import sockets\n"
        "(listener,) = sockets.activated(os.environ, Server())\n"
        "assert listener.fileno() == 3 and listener.proto == socket.IPPROTO_TCP\n"
        "assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)\n"
        "assert not listener.get_inheritable() and not listener.getblocking()\n"
        "assert not [name for name in os.environ if name.startswith('LISTEN_')]\n"
    )
    with listening() as listener:
        fd = listener.fileno()
        command = [sys.executable, str(APPS / "handed.py"), "self", str(fd), sys.executable, "-c", program]
        subprocess.run(command, pass_fds=[fd], timeout=20, check=True)


def test_descriptor_that_is_no_socket_is_named(tree: Tree) -> None:
    with open(os.devnull) as null:
        fd = null.fileno()
        process = tree.spawn(sys.executable, str(APPS / "handed.py"), "self", str(fd), pass_fds=[fd])
        assert process.wait(20) == EXIT_CONFIG
    assert "Descriptor 3 (http0) from LISTEN_FDS is not a socket" in tree.text()
