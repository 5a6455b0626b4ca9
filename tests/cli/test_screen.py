"""Drives a small program that draws, in a real terminal."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from terminal import Terminal, running

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

PROGRAM = """
import sys, time
from ragagent.cli.screen import RESIZED, screen
with screen(is_coloured="plain" not in sys.argv) as found:
    found.draw(["drawn", "\\x1b[31mred\\x1b[0m"])
    while True:
        event = found.wait(time.monotonic() + 60)
        if event == RESIZED:
            found.draw(["size %d %d." % found.size()])
        elif event == "x":
            raise RuntimeError("boom")
        elif event == "q":
            break
        else:
            found.draw([f"key {event}."])
"""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal(80, 24)
    yield found
    found.close()


@contextmanager
def drawing(terminal: Terminal, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program, and see afterwards that the terminal is as it was."""
    before = terminal.attributes()
    with running(terminal, "-c", PROGRAM, *arguments) as process:
        terminal.wait_for("red")
        assert terminal.attributes() != before
        yield process
        process.wait(30)
    terminal.press("\n")  # Echoed again, behind all that the program has written.
    terminal.wait_for("\r\n")
    assert terminal.attributes() == before
    assert terminal.shown.count(ENTER) == terminal.shown.count(LEAVE)
    assert terminal.shown.rindex(LEAVE) > terminal.shown.rindex(ENTER)


def test_keys_come_at_once_and_are_not_echoed(terminal: Terminal) -> None:
    with drawing(terminal) as process:
        terminal.press("k")
        assert terminal.wait_for("key k.").count("k") == 2
        terminal.press("q")
        assert process.wait(30) == 0


def test_a_drawing_replaces_the_last_one_and_keeps_its_colours(terminal: Terminal) -> None:
    with drawing(terminal):
        assert f"{ENTER}\x1b[H\x1b[Kdrawn\r\n\x1b[J\x1b[31mred\x1b[0m" in terminal.shown
        terminal.press("q")


def test_without_colours_a_drawing_is_plain(terminal: Terminal) -> None:
    with drawing(terminal, "plain"):
        assert "\x1b[H\x1b[Kdrawn\r\n\x1b[Jred" in terminal.shown
        terminal.press("q")


def test_a_resize_is_an_event(terminal: Terminal) -> None:
    with drawing(terminal):
        terminal.resize(100, 30)
        terminal.wait_for("size 100 30.")
        terminal.press("q")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_that_ends_the_program_leaves_the_screen(terminal: Terminal, number: int, code: int) -> None:
    with drawing(terminal) as process:
        process.send_signal(number)
        assert process.wait(30) == code


def test_an_exception_leaves_the_screen_and_is_shown_behind_it(terminal: Terminal) -> None:
    with drawing(terminal) as process:
        terminal.press("x")
        assert process.wait(30) == 1
        terminal.wait_for("boom")
    assert terminal.shown.rindex("boom") > terminal.shown.rindex(LEAVE)


def test_ctrl_z_gives_the_terminal_back_until_the_program_goes_on(terminal: Terminal) -> None:
    before = terminal.attributes()
    with drawing(terminal) as process:
        os.kill(process.pid, signal.SIGTSTP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert terminal.attributes() == before
        terminal.wait_for(LEAVE)
        process.send_signal(signal.SIGCONT)
        terminal.wait_for("size 80 24.")
        terminal.press("q")
