"""One line per event, the same shape in every process of the tree: on stderr, or in a file that all append to.

With a file, descriptors 1 and 2 of every process *are* the file, so that a traceback, a dump of all stacks and what a C
library prints go there as well. SIGUSR1 means that the file was moved away: everyone opens its path anew, and whoever
is started meanwhile inherits the right one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

from ragagent.errors import ConfigError

FORMAT = "%(asctime)s %(levelname)-7s %(name)s[%(process)d] %(message)s"
RECENT_LINES = 1_000

_STDOUT, _STDERR = 1, 2
_MODE = 0o640  # Questions may stand in it: the owner writes, a group such as adm may read.


def configure(level: str) -> None:
    """Send our records of `level` ("debug" … "error") and above to stderr, and the warnings of what we build on."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format=FORMAT, force=True)
    logging.getLogger("ragagent").setLevel(level.upper())


class Terminal:
    """The stderr that we were started with: where a person looks, whatever the log goes to."""

    def __init__(self) -> None:
        self._fd = os.dup(_STDERR)

    def say(self, text: str) -> None:
        """Write `text`, as one line or more. A terminal that is gone is no reason to fail."""
        with suppress(OSError):
            os.write(self._fd, f"{text}\n".encode())


class Recent(logging.Handler):
    """The last lines of this process's log, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._lines: deque[str] = deque(maxlen=RECENT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.extend(self.format(record).splitlines())

    def lines(self, count: int = RECENT_LINES) -> list[str]:
        """Return the last `count` of them, oldest first."""
        return list(self._lines)[-count:] if count > 0 else []


def remember() -> Recent:
    """Keep what is logged from here on in memory as well. After `configure`, which begins anew."""
    recent = Recent()
    logging.getLogger().addHandler(recent)
    return recent


def redirect(path: Path) -> None:
    """Make the file at `path` our stdout and stderr; raises ConfigError when it cannot be opened."""
    try:
        reopen(path)
    except OSError as exc:
        raise ConfigError(f"Log file '{path}' cannot be opened: {exc.strerror}.") from exc


def reopen(path: Path) -> None:
    """Open `path` anew, and move stdout and stderr there at one moment each: no line is lost or split."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        os.dup2(fd, _STDOUT)
        os.dup2(fd, _STDERR)
    finally:
        os.close(fd)


def follow(path: Path | None) -> None:
    """Reopen `path` at each SIGUSR1, in this process and those that it forks; without a path SIGUSR1 is ignored.

    The handler takes no lock and logs nothing, so it may run between any two steps of the program. It needs no event
    loop; where there is one, the signal wakes it.
    """
    if path is None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGUSR1, lambda *_: _reopen_or_stay(path))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # Held since the exec, when it would have killed us.


def _reopen_or_stay(path: Path) -> None:
    try:
        reopen(path)
    except OSError as exc:
        with suppress(OSError):  # A full disk, likely: nothing may be raised into whatever this interrupts.
            os.write(_STDERR, f"Log file '{path}' cannot be opened again: {exc.strerror}.\n".encode())
