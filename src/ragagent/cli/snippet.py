"""The part of a chunk that shows why it was found, with the query's words marked."""

from __future__ import annotations

import re
from bisect import bisect_left

import click

from ragagent.cli.output import clean

LENGTH = 240  # characters: three lines of a terminal

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUNS = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")


def snippet(text: str, query: str, length: int = LENGTH) -> str:
    """Return at most `length` characters in one line: where the query's words stand closest, those words in bold."""
    text = " ".join(clean(text).split())
    words = _words(query)
    start = _best_start([match.start() for match in words.finditer(text)], length) if words else 0
    start, end = _window(text, start, length)
    shown = text[start:end]
    if words:
        shown = words.sub(lambda match: click.style(match.group(), bold=True), shown)
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def _words(query: str) -> re.Pattern[str] | None:
    """Return what finds the query's words: Latin ones by their beginning, Chinese ones by any two characters."""
    found = [part for run in _RUNS.findall(query) for part in _parts(run)]
    return re.compile("|".join(sorted(set(found), key=len, reverse=True)), re.IGNORECASE) if found else None


def _parts(run: str) -> list[str]:
    if re.match(rf"[{_CJK}]", run):
        return [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    # "reloads" is found in "reload" and "reloading": an inflected end must not hide a word.
    stem = run if len(run) < 5 else run[: len(run) - (2 if len(run) > 6 else 1)]
    return [rf"\b{stem}\w*"] if len(run) > 2 or run.isdigit() else []


def _best_start(places: list[int], length: int) -> int:
    """Return the place from which most of the others are within `length`."""
    return max(places, key=lambda place: (bisect_left(places, place + length) - places.index(place), -place), default=0)


def _window(text: str, start: int, length: int) -> tuple[int, int]:
    """Return the cut around `start`: a little before it, at white space where there is some near."""
    start = max(min(start - length // 6, len(text) - length), 0)
    if start and (space := text.find(" ", start, start + 20)) >= 0:
        start = space + 1
    end = min(start + length, len(text))
    if end < len(text) and (space := text.rfind(" ", end - 20, end)) >= 0:
        end = space
    return start, end
