"""The supervisor's line to the process that exports for it (`ragagent.supervisor.report`), and that process's life.

Nothing here waits for a reader, except `close`: what does not fit the line is dropped and counted. A collector that is
slow, gone or hung, an exporter that is stopped, killed or cannot even be started: none of them slows the supervisor.
Every message says where it goes and the line outlives whoever reads it, so that a process that takes the place of
another needs to be told nothing, and loses no more than what the other one held in its hands.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ragagent.supervisor.backoff import FIRST_SECONDS, MAX_SECONDS, YOUNG_SECONDS
from ragagent.supervisor.process import Helpers, is_child, spawn

_POLL_SECONDS = 0.01

logger = logging.getLogger("ragagent.supervisor")


class Reporter:
    """Off until `point_at` names a collector. Its owner calls `tend` every turn; `helpers` tells it of its deaths."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self.dropped = 0  # messages that found no room on the line
        self.pid: int | None = None
        self._destination: Mapping[str, Any] | None = None
        # One series for all the exporters that this supervisor will ever have.
        self._instance = str(uuid.uuid4())
        self._line: tuple[socket.socket, socket.socket] | None = None  # ours, and the one that the exporter inherits
        self._born = 0.0
        self._failures = 0
        self._retry_at = 0.0

    def point_at(self, endpoint: str, service_name: str) -> None:
        """Send what follows there. An empty endpoint: to nobody, and the exporter leaves."""
        if not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            self._hang_up()
            return
        self._destination = {
            "endpoint": endpoint,
            "service_name": service_name,
            "instance": self._instance,
            "pid": os.getpid(),
        }

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand over one message, if anybody wants it: never waits, never raises for what the other side does."""
        if self._destination is None:
            return
        data = json.dumps({**message, "to": self._destination}, separators=(",", ":")).encode()
        try:
            self._open()[0].send(data, socket.MSG_DONTWAIT)
        except OSError:  # Full, too large for one packet, or there was no descriptor left to make a line of.
            self.dropped += 1

    def tend(self, now: float) -> None:
        """See to it that an exporter runs, if there is anybody to report to."""
        if self._destination is None or self.pid is not None or now < self._retry_at:
            return
        self._born = now
        try:
            theirs = self._open()[1].fileno()
            arguments = ["--supervisor", str(os.getpid()), "--line", str(theirs)]
            pid = spawn("ragagent.supervisor.report", arguments, keep=[theirs])
        except OSError as exc:
            self._failed(f"cannot be started: {exc.strerror}", now)
            return
        self.pid = pid
        self._helpers[pid] = lambda how, _, at: self._ended(pid, how, at)

    def _ended(self, pid: int, how: str, at: float) -> None:
        if pid == self.pid:  # Else it has been told to leave.
            self.pid = None
            self._failed(f"(pid {pid}) has ended: {how}", at)

    def close(self, timeout: float) -> None:
        """Let the exporter send what is left, and leave; kill it when it has not after `timeout` seconds."""
        pid = self.pid
        self._hang_up()
        if pid is None:
            return
        deadline = time.monotonic() + timeout
        while not _is_reaped(pid):
            if time.monotonic() >= deadline:
                logger.warning("The exporter (pid %d) is killed: it did not leave within %g s.", pid, timeout)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(_POLL_SECONDS)

    def _open(self) -> tuple[socket.socket, socket.socket]:
        """Return the line, made on first use. One packet is one message: a dead reader leaves no half of one behind."""
        if self._line is None:
            self._line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return self._line

    def _hang_up(self) -> None:
        """End the line: whoever reads it sends what it still finds there, and leaves by itself."""
        for end in self._line or ():
            end.close()
        self._line = self._destination = self.pid = None

    def _failed(self, how: str, now: float) -> None:
        self._failures = 1 if now - self._born >= YOUNG_SECONDS else self._failures + 1
        delay = min(FIRST_SECONDS * 2.0 ** min(self._failures - 1, 16), MAX_SECONDS)
        self._retry_at = now + delay
        logger.warning("The exporter of the supervisor's telemetry %s. The next one in %g s.", how, delay)


def _is_reaped(pid: int) -> bool:
    """Whether `pid` is gone and reaped, by us or by somebody before us."""
    return not is_child(pid) or os.waitpid(pid, os.WNOHANG)[0] == pid
