"""A real terminal for a program under test: what it shows, which keys it gets, and whether it is left as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = 60.0

# Not by preexec_fn, which is unsafe beside the threads of a test: a child of its own takes the terminal, then becomes
# the program.
_BECOME = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    def __init__(self, columns: int, lines: int) -> None:
        self._ours, self.theirs = pty.openpty()
        self._shown = b""
        self.resize(columns, lines)

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)

    @property
    def shown(self) -> str:
        """All that was written so far, sequences included."""
        return self._shown.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self.theirs))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> str:
        """Read until `text` is shown after what was read before; return what came until then."""
        start, deadline = len(self.shown), time.monotonic() + SECONDS
        while text not in self.shown[start:]:
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{self.shown[start:]}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._shown += os.read(self._ours, 65_536)
        return self.shown[start:]


@contextlib.contextmanager
def running(terminal: Terminal, *arguments: str | Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run this interpreter with the arguments, in a session of its own that the terminal controls."""
    command = [sys.executable, "-c", _BECOME, sys.executable, *map(str, arguments)]
    environment, end = os.environ | {"TERM": "xterm", **env}, terminal.theirs
    with subprocess.Popen(command, env=environment, stdin=end, stdout=end, stderr=end) as process:
        try:
            yield process
        finally:
            process.kill()
