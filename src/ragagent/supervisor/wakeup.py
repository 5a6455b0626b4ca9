"""Signals as bytes on a socket: they end `select`, and are handled between two rounds of the loop, never inside one."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable


class Wakeup:
    """Takes `numbers` from their default handlers for as long as it is open. One per process, main thread only."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = frozenset(numbers)
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        # A full socket loses nothing: SIGCHLD is only a reason to look, and one SIGHUP is worth as much as twenty.
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)  # An upgrade blocks them until here.

    def fileno(self) -> int:
        return self._reading.fileno()

    def signals(self) -> list[signal.Signals]:
        """Return what has arrived, in order, without waiting."""
        try:
            return [signal.Signals(number) for number in self._reading.recv(4096) if number in self._numbers]
        except BlockingIOError:
            return []

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        self._reading.close()
        self._writing.close()
