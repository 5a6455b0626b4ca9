"""Listeners: bound, named, refused."""

from __future__ import annotations

import socket

import pytest

from ragagent.config import Server
from ragagent.errors import ConfigError
from ragagent.supervisor import sockets


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
