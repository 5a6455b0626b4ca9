"""SIGUSR2: the supervisor becomes its own successor by `exec`, after a rehearsal in a process that may fail.

The pid stays, and with it the pidfile, systemd's idea of us, every child and every listening socket: no connection
notices. There is no way back from `exec`, so a new process first does all that the new image will have to do with our
state, short of touching anything. Only when it can, we go.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ragagent.errors import EXIT_OK
from ragagent.supervisor import handover, sockets
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.handover import Estate
from ragagent.supervisor.process import Helpers, spawn

ADOPT = "--adopt"
REHEARSE = "--rehearse"

logger = logging.getLogger("ragagent.supervisor")


class Upgrader:
    """The steps of an upgrade, as the fleet decides them. `estate` makes what would be handed over now."""

    def __init__(
        self,
        fleet: Fleet,
        helpers: Helpers,
        estate: Callable[[], Estate],
        signals: Iterable[signal.Signals],
        environment: Mapping[str, str],
    ) -> None:
        self._fleet = fleet
        self._helpers = helpers
        self._estate = estate
        self._signals = signals
        self._environment = environment
        self._pid = 0  # of the rehearsal

    def rehearse(self) -> None:
        try:
            self._pid = rehearse(self._estate())
        except OSError as exc:
            self._fleet.rehearsed(f"its rehearsal cannot be started: {exc.strerror}")
            return
        self._helpers[self._pid] = self._rehearsed

    def _rehearsed(self, how: str, code: int | None, _: float) -> None:
        failure = f"its rehearsal ended with {how}; the log above says why"
        self._fleet.rehearsed(None if code == EXIT_OK else failure)

    def call_off(self, reason: str) -> None:
        if self._helpers.pop(self._pid, None) is not None:  # It is still at it, and would be for ever.
            os.kill(self._pid, signal.SIGKILL)
        logger.error("The supervisor is not upgraded, and goes on as it is: %s.", reason)

    def succeed(self) -> None:
        logger.info("The supervisor is upgraded: exec.")
        try:
            become(self._estate(), self._signals, self._environment)
        except OSError as exc:
            logger.error("The supervisor cannot be upgraded, and goes on as it is: %s.", exc.strerror)


def rehearse(estate: Estate) -> int:
    """Start the rehearsal and return its pid: exit code 0 says that the code on disk could take over."""
    fd = _written(handover.dump(estate))
    try:
        return spawn("ragagent.supervisor", [REHEARSE, str(fd)], keep=[fd])
    finally:
        os.close(fd)


def perform(fd: int) -> None:
    """The rehearsal itself. Raises what the new image would."""
    handover.load(_read(fd), lambda _: socket.socket())


def become(estate: Estate, signals: Iterable[signal.Signals], environment: Mapping[str, str]) -> None:
    """Become the new image; returns only by OSError, and then nothing has changed.

    `signals` are blocked until the new image handles them: in between, their default is to kill. `environment` is what
    this image has taken out of its own, for itself alone.
    """
    fd = _written(handover.dump(estate))
    kept = [fd, *estate.descriptors()]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        _keep(kept, True)
        command = [sys.executable, *_arguments(sys.orig_argv[1:]), ADOPT, str(fd)]
        os.execve(sys.executable, command, {**os.environ, **environment})
    finally:
        _keep(kept, False)
        os.close(fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def adopted(fd: int) -> Estate:
    """Return what the image before this one has left."""
    return handover.load(_read(fd), sockets.inherited)


def _arguments(arguments: Sequence[str]) -> list[str]:
    """Return our own command line, without what an earlier upgrade has added to it."""
    kept = list(arguments)
    while ADOPT in kept:
        at = kept.index(ADOPT)
        del kept[at : at + 2]
    return kept


def _written(plain: Mapping[str, Any]) -> int:
    """Return a descriptor of nameless memory that holds `plain`."""
    fd = os.memfd_create("ragagent-state", os.MFD_CLOEXEC)
    with open(os.dup(fd), "w", encoding="utf-8") as file:
        json.dump(plain, file)
    return fd


def _read(fd: int) -> Mapping[str, Any]:
    with open(fd, encoding="utf-8") as file:
        file.seek(0)  # The position is shared with whoever wrote it.
        plain: Mapping[str, Any] = json.load(file)
    return plain


def _keep(fds: Iterable[int], inheritable: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, inheritable)
