"""What a command says, and how: text for people, or with --json exactly one document on stdout for programs.

A command that goes on until it is ended prints a document per line instead. Errors are one line on stderr and exit
code 1, in both forms. Colours are click's to strip where stdout is no terminal; `main.py` turns them off for NO_COLOR.
"""

from __future__ import annotations

import functools
import json
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import click

from ragagent.errors import RagagentError

Cell = str | int | float | None
Command = Callable[..., None]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Output:
    as_json: bool

    def document(self, value: Any) -> None:
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))

    def row(self, value: Any) -> None:
        """Print one of many documents, in a line of its own, at once."""
        click.echo(json.dumps(value, ensure_ascii=False))

    def line(self, text: str = "") -> None:
        click.echo(text)


class Failure(click.ClickException):
    """An error of ours on its way out of a command."""

    def __init__(self, error: RagagentError, as_json: bool) -> None:
        super().__init__(clean(error.message))
        self._error = error
        self._as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        super().show(file)
        if self._as_json:
            Output(True).document(problem(self._error))


def reporting(command: Command) -> Command:
    """Give the command --json and `out`, and turn our errors into its last line."""

    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document.")
    @functools.wraps(command)
    def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
        try:
            command(*args, out=Output(as_json), **kwargs)
        except RagagentError as exc:
            raise Failure(exc, as_json) from exc

    return run


def problem(error: RagagentError) -> dict[str, Any]:
    """Return the error as the document that programs get."""
    return {"error": {"message": clean(error.message), "param": error.param, "code": error.code}}


def clean(text: str) -> str:
    """Return the text without control characters: a document must not be able to command the reader's terminal."""
    return _CONTROL.sub("", text)


def flat(text: str) -> str:
    """Return the text in one line, without control characters."""
    return " ".join(clean(text).split())


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return aligned columns, their header dimmed."""
    head, *lines = aligned(header, rows)
    return "\n".join((click.style(head, dim=True), *lines))


def aligned(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Return plain, aligned lines, numbers to the right. None, and what is empty, is shown as a dash."""
    cells = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(map(span, column)) for column in zip(header, *cells, strict=True)]
    right = [any(isinstance(row[at], int | float) for row in rows) for at in range(len(header))]
    return [_line(line, widths, right) for line in (header, *cells)]


def cut(text: str, limit: int) -> str:
    """Return as much of a plain line as `limit` columns hold, with an ellipsis for the rest."""
    if span(text) <= limit:
        return text
    while text and span(text) >= limit:
        text = text[:-1]
    return f"{text}…" if limit else ""


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        " " * (width - span(cell)) + cell if to_right else cell + " " * (width - span(cell))
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _shown(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else flat(str(cell))


def span(text: str) -> int:
    """Return the columns that the text takes in a terminal: a Chinese character takes two."""
    marks = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def duration(seconds: float | None) -> str:
    """Return a span of time in the two units that matter: "850 ms", "12 s", "3 m 20 s", "2 d 4 h"."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} {int(seconds % length // part)} {smaller}"
    return f"{int(seconds)} s"


def size(count: int) -> str:
    """Return a number of bytes as people say it."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def moment(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_seconds))
