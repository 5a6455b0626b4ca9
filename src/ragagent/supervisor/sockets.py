"""Listening sockets, bound once by the supervisor, or handed to it by systemd, and kept for its whole life.

Workers come and go on duplicates, so between two of them connections queue in the kernel instead of being refused.
No SO_REUSEPORT: it gives each worker a queue of its own, which dies with the worker, requests included.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping
from itertools import chain, repeat

from ragagent.config import Server
from ragagent.errors import ConfigError

FIRST_FD = 3  # Where sd_listen_fds begins.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def activated(environ: MutableMapping[str, str], settings: Server) -> list[socket.socket]:
    """Return the listeners that systemd has handed to this process; none is no error, one that cannot serve is.

    The variables are taken out of `environ`: no child may take a descriptor of its own for one of these.
    """
    pid, count, names = (environ.pop(name, "") for name in VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    named = chain(names.split(":"), repeat(""))
    return [_adopted(FIRST_FD + index, next(named), settings) for index in range(int(count))]


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


def _adopted(fd: int, name: str, settings: Server) -> socket.socket:
    described = f"Descriptor {fd} ({name or 'unnamed'}) from LISTEN_FDS"
    try:
        listener = socket.socket(fileno=fd)
    except OSError as exc:
        raise ConfigError(f"{described} is not a socket: {exc.strerror}.") from exc
    if refused := _refusal(listener, settings):
        listener.close()
        raise ConfigError(f"{described} {refused}")
    listener.set_inheritable(False)
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _refusal(listener: socket.socket, settings: Server) -> str | None:
    """Return why `listener` cannot be served, to be read after its name."""
    if not _is_tcp_listener(listener):
        return "is not a listening TCP socket; in a socket unit that is ListenStream= with a port."
    host = listener.getsockname()[0]
    # Whether keys are required is read from server.bind, so that must not say less than the truth.
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback != settings.is_loopback:
        return (
            f"listens on {host}, but server.bind is {settings.bind}: one is loopback and the other is not. server.bind "
            "decides whether keys are required; set it to the address that the socket unit listens on."
        )
    return None


def _is_tcp_listener(listener: socket.socket) -> bool:
    return (
        listener.family in (socket.AF_INET, socket.AF_INET6)
        and listener.type == socket.SOCK_STREAM
        and bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


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
