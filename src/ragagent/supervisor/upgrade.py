"""SIGUSR2: the supervisor becomes its own successor by `exec`, after a rehearsal in a process that may fail.

The pid stays, and with it the pidfile, systemd's idea of us, every child and every listening socket: no connection
notices. There is no way back from `exec`, so a new process first does all that the new image will have to do with our
state, short of touching anything. Only when it can, we go.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ragagent.supervisor import handover, sockets
from ragagent.supervisor.handover import Estate
from ragagent.supervisor.process import spawn

ADOPT = "--adopt"
REHEARSE = "--rehearse"


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


def succeed(estate: Estate, signals: Iterable[signal.Signals], environment: Mapping[str, str]) -> None:
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
