"""`ragagent top`: `status`, drawn anew each second, with what only two looks can tell: CPU and requests per second."""

from __future__ import annotations

import itertools
import time
from typing import Any

import click

from ragagent.cli.control import done
from ragagent.cli.data_directory import with_data
from ragagent.cli.frame import frame
from ragagent.cli.output import Output, duration, flat, problem, reporting
from ragagent.cli.sample import Rates, Sample
from ragagent.cli.screen import RESIZED, is_terminal, screen
from ragagent.config import Data
from ragagent.errors import RagagentError

# Short, for a supervisor that does not answer is itself what the viewer has come to see.
ANSWER_SECONDS = 2.0
_UNBOUNDED = 1_000_000  # a file and a pipe take lines of any length


class Watch:
    """The last two samples of a server, and since when there is no newer one."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._sample = self._taken()
        self._previous: Sample | None = None
        self.error: RagagentError | None = None

    def look(self) -> None:
        try:
            sample = self._taken()
        except RagagentError as exc:
            self.error = exc
            return
        # Across a gap the rates would be those of the gap, and of another supervisor's children perhaps.
        self._previous, self._sample, self.error = None if self.error else self._sample, sample, None

    def frame(self, width: int = _UNBOUNDED, height: int = _UNBOUNDED) -> list[str]:
        return frame(self._sample, self._previous, width, height, self._lost())

    def document(self) -> dict[str, Any]:
        """Return the status with the rates of each process, or the error."""
        if self.error is not None:
            return problem(self.error)
        rates, reply = Rates.between(self._previous, self._sample), self._sample.reply
        total = {"requests_per_second": rates.total}
        indexer = reply.get("indexer")
        return {
            **reply,
            "supervisor": reply["supervisor"] | _document(reply["supervisor"], rates) | total,
            "workers": [entry | _document(entry, rates) for entry in reply["workers"]],
            "indexer": indexer | _document(indexer, rates) if indexer else indexer,
        }

    def _taken(self) -> Sample:
        return Sample.of(done(self._data, "status", ANSWER_SECONDS))

    def _lost(self) -> str:
        if self.error is None:
            return ""
        ago = duration(time.monotonic() - self._sample.clock)
        return f"Nothing new for {ago}, asking on: {flat(self.error.message)}"


def _document(entry: Any, rates: Rates) -> dict[str, Any]:
    pid = entry["pid"]
    return {"cpu_percent": rates.cpu_percent.get(pid), "requests_per_second": rates.requests.get(pid)}


@click.command()
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds from look to look."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many.")
@reporting
@with_data
def top(interval: float, count: int | None, out: Output, data: Data) -> None:
    """Show the processes at work, live; q ends it.

    Without a terminal it prints one frame after the other, with --json each as one line.
    """
    watch = Watch(data)
    try:
        if is_terminal() and not out.as_json:
            _live(watch, interval, count)
        else:
            _printed(watch, interval, count, out)
    except KeyboardInterrupt:
        return  # How it is ended, and no failure.


def _live(watch: Watch, interval: float, count: int | None) -> None:
    with screen(is_coloured=click.get_current_context().color is not False) as terminal:
        for _ in range(count) if count is not None else itertools.count():
            next_look = time.monotonic() + interval
            terminal.draw(watch.frame(*terminal.size()))
            while event := terminal.wait(next_look):
                if event == RESIZED:
                    terminal.draw(watch.frame(*terminal.size()))
                elif "q" in event.lower():
                    return
            watch.look()


def _printed(watch: Watch, interval: float, count: int | None, out: Output) -> None:
    """Begin after the first interval: a single frame has its rates then."""
    for number in range(count) if count is not None else itertools.count():
        time.sleep(interval)
        watch.look()
        if out.as_json:
            out.row(watch.document())
            continue
        if number:
            out.line()
        for line in watch.frame():
            out.line(line)
