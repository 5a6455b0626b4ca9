"""Listening sockets, bound once by the supervisor and kept for its whole life.

Workers come and go on duplicates, so between two of them connections queue in the kernel instead of being refused.
No SO_REUSEPORT: it gives each worker a queue of its own, which dies with the worker, requests included.
"""

from __future__ import annotations

import os
import socket

from ragagent.config import Server
from ragagent.errors import ConfigError


def listen(settings: Server) -> list[socket.socket]:
    """Return the listeners of `settings.bind`; raises ConfigError when the address cannot be had."""
    try:
        family, address = _resolve(settings.host, settings.port)
        return [_listener(family, address, settings.backlog)]
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
        raise ConfigError(f"Cannot listen on {settings.bind}: {reason}.") from exc


def inherited(fd: int) -> socket.socket:
    """Return the socket that an earlier image of this process has left open as `fd`."""
    taken = socket.socket(fileno=fd)
    taken.set_inheritable(False)  # No child of ours shall have it by accident.
    return taken


def url(listener: socket.socket) -> str:
    """Return the address as a user would type it, with the port that was really given."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # IPv4 first: `localhost` is both, and clients that try the other one fall back to this one.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, (str(address[0]), port)


def _listener(family: socket.AddressFamily, address: tuple[str, int], backlog: int) -> socket.socket:
    # With protocol 0 asyncio would not set TCP_NODELAY, and every answer would wait 40 ms for a delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
