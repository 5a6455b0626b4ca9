"""Citations: every marker that leaves was checked against the text that was retrieved.

A generator writes `[n]` behind a statement. When the marker is complete, the statement before it is already known, so
it is verified at once, also while streaming: source n must exist, and one of its sentences must carry enough of the
statement's content words. That sentence is the quote. A marker that fails is taken out of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ragagent.text import content_tokens, sentences
from ragagent.types import Citation, Evidence

SUPPORT = 0.4  # of a statement's content tokens must stand in the quote; paraphrase keeps more than half on XQuAD
ALIGNED = 0.7  # ... when the generator set no marker and we look for the source ourselves

_MARKER = re.compile(r"(\s?)[\[【［](\d{1,3}(?:\s?[,，、]\s?\d{1,3}){0,9})[\]】］]")  # [1], 【1】, [1, 2]
_OPENING = re.compile(r"\s*(?:[\[【［][\d\s,，、]{0,60})?\Z")  # what may yet become a marker
_TRAILING = re.compile(rf"(?:{_MARKER.pattern})+\Z")


class Citer:
    """Feed it the generated text piece by piece; it hands on what may leave, and keeps the citations."""

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self._evidence = evidence
        self._held = ""
        self.text = ""
        self.citations: list[Citation] = []
        self.dropped = 0

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that is final now."""
        before = len(self.text)
        self._held += piece
        while marker := _MARKER.search(self._held):
            self.text += self._held[: marker.start()]
            self._mark(marker)
            self._held = self._held[marker.end() :]
        hold = _OPENING.search(self._held)
        cut = hold.start() if hold else len(self._held)
        self.text += self._held[:cut]
        self._held = self._held[cut:]
        return self.text[before:]

    def finish(self) -> str:
        """Return what was held back. Without one verified marker, cite the sentences that clearly have a source."""
        rest, self._held = self._held.rstrip(), ""
        self.text += rest
        if not self.citations:
            self.citations.extend(self._aligned())
        return rest

    def _mark(self, marker: re.Match[str]) -> None:
        """Keep of the marker the numbers whose source supports the statement before it."""
        statement = _statement_before(self.text)
        numbers = re.findall(r"\d+", marker[2])
        kept = [number for number in numbers if statement is not None and self._cite(statement, int(number))]
        self.dropped += len(numbers) - len(kept)
        if kept == numbers:
            self.text += marker[0]
        elif kept:
            self.text += f"{marker[1]}[{', '.join(kept)}]"

    def _cite(self, statement: tuple[int, int], number: int) -> bool:
        if not 1 <= number <= len(self._evidence):
            return False
        citation = verify(self.text, *statement, self._evidence[number - 1], SUPPORT)
        if citation is not None:
            self.citations.append(citation)
        return citation is not None

    def _aligned(self) -> Iterator[Citation]:
        for start, end in sentences(self.text):
            found = (verify(self.text, start, end, item, ALIGNED) for item in self._evidence)
            if citation := next((c for c in found if c is not None), None):
                yield citation


def verify(answer: str, start: int, end: int, source: Evidence, least: float) -> Citation | None:
    """Return the citation of `answer[start:end]` if a sentence of the source supports it, else None."""
    statement = _MARKER.sub("", answer[start:end])
    at, stop, support = _quote(statement, source.text)
    if support < least:
        return None
    return Citation(
        file_id=source.file_id,
        filename=source.filename,
        chunk_id=source.chunk_id,
        quote=source.text[at:stop],
        start_index=start,
        end_index=end,
        source_start=source.start + at,
        source_end=source.start + stop,
        score=round(support, 4),
    )


def _quote(statement: str, text: str) -> tuple[int, int, float]:
    """Return `(start, end, support)` of the place in `text` that carries most of the statement."""
    wanted = content_tokens(statement)
    if not wanted:
        return 0, 0, 0.0  # A dash or a "this" stands in every text, and says nothing.
    verbatim = text.find(statement)
    if verbatim >= 0 and wanted <= content_tokens(text):  # Else it stands within a longer word.
        return verbatim, verbatim + len(statement), 1.0
    scored = [
        (len(wanted & content_tokens(text[start:end])) / len(wanted), start, end) for start, end in sentences(text)
    ]
    support, start, end = max(scored, key=lambda item: (item[0], -item[1]), default=(0.0, 0, 0))
    return start, end, support


def _statement_before(text: str) -> tuple[int, int] | None:
    """Return the span of the last sentence of `text`, or of its part since the last marker in it.

    Markers right behind the statement do not end it: several may stand there. Those of the sentence before stand at its
    start, since a marker ends with nothing that ends a sentence.
    """
    bare = _TRAILING.sub("", text)
    start, end = max(sentences(bare), default=(0, 0))
    for marker in _MARKER.finditer(bare, start, end):
        if content_tokens(bare[marker.end() : end]):
            start = marker.end()
    start = end - len(bare[start:end].lstrip())
    return (start, end) if start < end else None
