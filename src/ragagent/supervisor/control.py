"""The control socket: one JSON line in, one JSON line out, on a Unix socket that only our user may open.

What can be asked is in `commands.py`; a reply may take as long as what it tells of. `request` is the client.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragagent.errors import Unavailable

NAME = "control.sock"
MAX_LINE_BYTES = 65_536

Reply = Mapping[str, Any]


class Client:
    """One connection. A reply may come long after its request; a client that went away meanwhile costs nothing."""

    def __init__(self, connection: socket.socket, on_unsent: Callable[[], None] = lambda: None) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._on_unsent = on_unsent
        self._unread = b""
        self._unsent = b""

    def lines(self) -> list[bytes] | None:
        """Return the complete lines that have arrived; None when the client is gone, or never ends its line."""
        try:
            data = self.connection.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data or len(self._unread) + len(data) > MAX_LINE_BYTES:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return lines

    def reply(self, reply: Reply) -> None:
        self._unsent += json.dumps(reply).encode() + b"\n"
        self.flush()
        if self._unsent:
            self._on_unsent()

    def flush(self) -> bool:
        """Send what there is room for; whether that was all. Who does not read holds up nobody."""
        try:
            sent = self.connection.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._unsent)  # Gone.
        self._unsent = self._unsent[sent:]
        return not self._unsent


class Control:
    """Listens in the data directory and hands each request to `answer`. Callbacks of the arbiter's selector."""

    def __init__(
        self,
        directory: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[Mapping[str, Any], Client], None],
    ) -> None:
        self._path = directory / NAME
        self._selector = selector
        self._answer = answer
        self._clients: set[Client] = set()
        self._listener = _listen(directory)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # The client has gone again, or we are out of descriptors: it may come back.
            return
        if not _is_ours(connection):
            connection.close()
            return
        client = Client(connection, lambda: self._flush_later(client))
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _flush_later(self, client: Client) -> None:
        """Write when there is room again, and read no more requests until then."""
        if client in self._clients:
            self._selector.modify(client.connection, selectors.EVENT_WRITE, lambda: self._flush(client))

    def _flush(self, client: Client) -> None:
        if client.flush():
            self._selector.modify(client.connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        lines = client.lines()
        if lines is None:
            self._drop(client)
            return
        for line in lines:
            request = _parsed(line)
            if request is None:
                client.reply({"ok": False, "reason": 'A request is one JSON line, as in {"command": "status"}.'})
            else:
                self._answer(request, client)

    def _drop(self, client: Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()


def request(directory: Path, command: str, timeout: float | None = None, **arguments: Any) -> dict[str, Any]:
    """Ask the supervisor of `directory` and return its reply; raises Unavailable when none runs there."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short(directory) as short:
            connection.settimeout(timeout)
            connection.connect(f"{short}/{NAME}")
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
    except OSError as exc:
        raise Unavailable(f"No supervisor answers on '{directory / NAME}': {exc.strerror or exc}.") from exc
    if not line:
        raise Unavailable(f"The supervisor of '{directory}' ended before it answered '{command}'.")
    reply: dict[str, Any] = json.loads(line)
    return reply


def _listen(directory: Path) -> socket.socket:
    (directory / NAME).unlink(missing_ok=True)  # Left by kill -9: we hold the pidfile, so nobody listens there.
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    previous = os.umask(0o177)
    try:
        with _short(directory) as short:
            listener.bind(f"{short}/{NAME}")
    finally:
        os.umask(previous)
    listener.listen(16)
    return listener


def _is_ours(connection: socket.socket) -> bool:
    """Whether our own user or root is at the other end. The file's mode says the same; a mode can be changed."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.geteuid())


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yield a short name of `directory`: the address of a Unix socket holds 107 bytes, a deep directory more."""
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
