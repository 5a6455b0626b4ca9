"""One question to one worker: `GET /readyz`, on a connection that nobody else can answer.

A probe of the port would ask whichever worker accepts it, so a sick one would hide behind the others. Here the worker
is handed one end of a socket pair over its lifeline, and answers on it as on any other connection.
"""

from __future__ import annotations

import socket

from ragagent.supervisor.member import Outcome

_REQUEST = b"GET /readyz HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\n\r\n"
_STATUS_BYTES = len(b"HTTP/1.1 200")


class Probe:
    """Our end. `theirs` is the worker's: hand it over, then close it."""

    def __init__(self) -> None:
        self._end, self.theirs = socket.socketpair()
        self._end.setblocking(False)
        self._end.send(_REQUEST)
        self._head = b""

    def fileno(self) -> int:
        return self._end.fileno()

    def read(self) -> Outcome | None:
        """Return what the answer says, without waiting; None: it is not there yet."""
        try:
            data = self._end.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self._head += data
        if len(self._head) >= _STATUS_BYTES:
            return "ok" if self._head[9:_STATUS_BYTES] == b"200" else "not_ready"
        return None if data else "no_answer"

    def close(self) -> None:
        self._end.close()
