"""A terminal that a program draws on, and that is given back as it was: whatever ends the program, or suspends it."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

RESIZED = "resized"

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

# What ends a program without an exception of Python's: turned into one, so that the terminal is given back.
_ENDS = (signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], Any]


def is_terminal() -> bool:
    """Whether stdout can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._attributes = termios.tcgetattr(self._keys) if self._keys is not None else None
        self._signals, self.wakeup = os.pipe()
        os.set_blocking(self.wakeup, False)

    def enter(self) -> None:
        if self._keys is not None:
            # Keys come one by one and are not echoed; Ctrl-C and Ctrl-Z still are signals.
            tty.setcbreak(self._keys, termios.TCSANOW)
        _write(_ENTER)

    def leave(self) -> None:
        try:
            _write(_LEAVE)
            if self._keys is not None and self._attributes is not None:
                termios.tcsetattr(self._keys, termios.TCSANOW, self._attributes)
        except (OSError, termios.error):
            pass  # The terminal itself has gone.

    def close(self) -> None:
        os.close(self._signals)
        os.close(self.wakeup)

    def size(self) -> os.terminal_size:
        return os.get_terminal_size(sys.stdout.fileno())

    def draw(self, lines: Sequence[str]) -> None:
        """Show the lines, which must fit, in place of what is there: at once, so that nothing flickers."""
        *shown, last = (line if self._is_coloured else click.unstyle(line) for line in lines or [""])
        # Erased before, not behind: behind a line that fills the screen's width, its last character would go.
        _write(_HOME + "".join(f"{_ERASE_LINE}{line}\n" for line in shown) + _ERASE_BELOW + last)

    def wait(self, until: float) -> str:
        """Return the next key, RESIZED when all is to be drawn anew, or nothing at the monotonic time `until`."""
        sources = [self._signals, *([self._keys] if self._keys is not None else [])]
        ready, _, _ = select.select(sources, [], [], max(until - time.monotonic(), 0.0))
        if self._signals in ready:
            os.read(self._signals, 4096)
            return RESIZED
        return os.read(ready[0], 64).decode(errors="replace") or "q" if ready else ""

    def suspend(self, *_: object) -> None:
        """Give the terminal back, stop as Ctrl-Z wants it, and go on here when we are continued."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()


@contextmanager
def screen(is_coloured: bool) -> Iterator[Screen]:
    """Yield the terminal as a screen to draw on; give it back whatever happens."""
    found = Screen(is_coloured)
    handlers: dict[signal.Signals, Handler] = {signal.SIGWINCH: _noted, signal.SIGTSTP: found.suspend}
    handlers |= dict.fromkeys(_ENDS, _end)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # A signal between the last look and `select` would be seen when that returns: a byte makes it return.
    woken = signal.set_wakeup_fd(found.wakeup, warn_on_full_buffer=False)
    try:
        found.enter()
        yield found
    finally:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # An impatient second one waits for this.
        found.leave()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        found.close()


def _noted(*_: object) -> None:
    """Nothing more to do: the byte that the signal wrote ends the wait."""


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
