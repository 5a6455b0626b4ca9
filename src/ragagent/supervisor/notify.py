"""The sd_notify protocol: words to the service manager that started us, one datagram each.

It never blocks and never raises: a manager that is away is no reason to die. Without NOTIFY_SOCKET it does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping

MAX_UNSENT = 32
_MICROSECONDS = 1_000_000

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to the socket at `address`. `watchdog_seconds`: how often the manager wants to hear from us, if at all."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self.environment: dict[str, str] = {}  # what was taken out, for an image that replaces this one
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._unsent: deque[bytes] = deque(maxlen=MAX_UNSENT)
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take the variables out of `environ`: children that inherited them could speak in our name."""
        taken = {name: environ.pop(name) for name in VARIABLES if name in environ}
        address, interval, pid = (taken.get(name, "") for name in VARIABLES)
        is_ours = pid in ("", str(os.getpid()))
        watchdog = int(interval) / _MICROSECONDS if is_ours and interval.isascii() and interval.isdigit() else 0.0
        # A name is all that we can speak to: other kinds of address (vsock) are for virtual machines.
        notifier = cls(address if address.startswith(("/", "@")) else None, watchdog or None)
        notifier.environment = taken
        return notifier

    def ready(self) -> None:
        self._say("READY=1")

    def reloading(self) -> None:
        # The manager compares the time with that of its own SIGHUP, to know which one this answers.
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """Show `text` in the manager's own status; one line of it, because a second one would be another word."""
        self._say(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        self._say("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask that what we are about to do (start, stop) may take `seconds` from now, whatever the unit allows."""
        self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def flush(self) -> None:
        """Send what the manager had no room for when it was said."""
        while self._unsent and self._send(self._unsent[0]):
            self._unsent.popleft()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, words: str) -> None:
        if self._socket is not None:
            self._unsent.append(words.encode())  # Behind what is unsent: READY must not overtake RELOADING.
            self.flush()

    def _send(self, datagram: bytes) -> bool:
        """Whether nothing more is to be done about `datagram`: it was sent, or never can be."""
        assert self._socket is not None
        assert self._address is not None
        try:
            self._socket.sendto(datagram, self._address)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
