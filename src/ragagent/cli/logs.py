"""`ragagent logs`: the end of the log, from its file or from the supervisor's memory, and what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from ragagent.cli.control import asked, done
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, clean, reporting
from ragagent.cli.tail import Tail
from ragagent.config import Data
from ragagent.errors import Unavailable

FILE_SECONDS = 0.25
SOCKET_SECONDS = 1.0
# How far back each poll of the socket looks: what is logged in a second should fit.
WINDOW_LINES = 500


@click.command()
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many to begin with."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
@reporting
@with_data
def logs(lines: int, follow: bool, out: Output, data: Data) -> None:
    """Show the server's last log lines.

    From the file that server.log_file names, where it does: of all processes. Else the supervisor's own, which it keeps
    in memory.
    """
    reply = done(data, "logs", lines=max(lines, WINDOW_LINES) if follow else lines)
    if reply.get("file") is None:
        if follow:
            _follow(_of_socket(data, reply["lines"], lines), out)
        else:
            _show(reply["lines"], reply | {"file": None}, out)
        return
    with closing(Tail(Path(reply["file"]))) as tail:
        if follow:
            _follow(_of_file(tail, lines), out)
        else:
            _show(tail.last(lines), reply, out)


def _show(lines: Sequence[str], reply: dict[str, object], out: Output) -> None:
    if out.as_json:
        out.document(reply | {"lines": lines})
        return
    for line in lines:
        out.line(clean(line))


def _follow(batches: Iterator[Sequence[str]], out: Output) -> None:
    """Print each line as it comes. Ctrl-C is how this ends, and no failure."""
    say: Callable[[str], None] = (
        (lambda line: out.row({"line": line})) if out.as_json else lambda line: out.line(clean(line))
    )
    try:
        for batch in batches:
            for line in batch:
                say(line)
    except KeyboardInterrupt:
        return


def _of_file(tail: Tail, count: int) -> Iterator[Sequence[str]]:
    yield tail.last(count)
    while True:
        yield tail.fresh()
        time.sleep(FILE_SECONDS)


def _of_socket(data: Data, window: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    """Ask again and again. A supervisor that is gone is told once, and waited for: it may be restarting."""
    yield window[max(len(window) - count, 0) :]
    is_there = True
    while True:
        time.sleep(SOCKET_SECONDS)
        try:
            later = asked(data, "logs", lines=WINDOW_LINES)["lines"]
        except Unavailable as exc:
            if is_there:
                click.echo(f"{clean(exc.message)} Waiting for one.", err=True)
            is_there = False
            continue
        is_there = True
        yield unseen(window, later)
        window = later


def unseen(earlier: Sequence[str], later: Sequence[str]) -> Sequence[str]:
    """Return what a window on a growing log shows beyond an earlier window on it."""
    for shared in range(min(len(earlier), len(later)), 0, -1):
        if earlier[len(earlier) - shared :] == later[:shared]:
            return later[shared:]
    return later
