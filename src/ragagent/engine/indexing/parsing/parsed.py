"""What every parser returns, and the one way in which it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ragagent.errors import Invalid

Reason = Literal["unsupported_file", "invalid_file", "server_error"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text of a document: never blank, newlines are "\\n", no NUL, no lone surrogate. Citations quote it."""

    text: str
    title: str | None


class Source(NamedTuple):
    """A document as its format reads it. `pieces` is lazy, so that a small file cannot unfold into endless text."""

    title: str | None
    pieces: Iterator[str]


class Unparsable(Invalid):
    """This document cannot become text. `code` is one of OpenAI's for a file that failed:

    unsupported_file  we do not read such files
    invalid_file      we read such files, but this one is damaged, locked, empty or not what its name says
    server_error      it needed more time or memory than a document may have here
    """

    code: str = "invalid_file"

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message, code=code)
