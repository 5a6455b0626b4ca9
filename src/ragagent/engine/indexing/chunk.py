"""Cutting a text into the pieces that are retrieved. Pure, linear in the length of the text, the same in any language.

The text becomes atoms, which are never cut: small paragraphs, sentences, and parts of long sentences. Each atom knows
how good a place its start is to cut at. Atoms are gathered until they are too many for one piece, then the best place
among them is taken. A piece is always `text[start:end]`, so that a citation can point into its document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ragagent.text import count_tokens, sentences

# How good it is to cut before an atom, best last.
_AFTER_HEADING = -1  # a heading stays with what follows
_ANYWHERE = 0  # within a sentence, or at the end of a line that may have been wrapped
_SENTENCE = 1
_LINE = 2  # where a line ends together with a sentence
_PARAGRAPH = 3
_HEADING = 4

# Text between blank lines; a Markdown heading also ends the paragraph above it.
_PARAGRAPH_END = re.compile(r"\n\s*\n\s*|\n(?=#{1,6}[ \t])")
_MARKDOWN_HEADING = re.compile(r"#{1,6}[ \t]")
_HEADING_CHARS = 80
_NO_HEADING_ENDS = tuple(".!?。！？；;,，…")
_SENTENCE_END = re.compile(r"[.!?。！？；…][\"'”’」』）)\]]*\Z")
_SPACE = re.compile(r"\s+")

# Sentences are looked for in stretches of so many characters: a sentence may be the whole file. That one of them may
# be cut in two does no harm, since its parts are atoms between which no one cuts without need.
_STRETCH_CHARS = 500


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text: `text == source[start:end]`, at most `max_tokens` long, never blank."""

    ordinal: int
    text: str
    start: int
    end: int


class _Atom(NamedTuple):
    start: int
    end: int
    tokens: int  # with the white space before it, since that comes with it into a piece
    strength: int


def chunk(text: str, *, max_tokens: int, overlap_tokens: int) -> list[Piece]:
    """Cut `text` into pieces of at most `max_tokens`, each beginning with up to `overlap_tokens` of the one before.

    Without overlap the pieces are disjoint, in order, and leave out white space only. Raises ValueError: `max_tokens`
    is not positive, or the overlap is more than half of it.
    """
    if max_tokens < 1 or not 0 <= overlap_tokens <= max_tokens // 2:
        raise ValueError(f"Pieces of {max_tokens} tokens cannot overlap by {overlap_tokens}.")
    room = max_tokens - overlap_tokens
    spans = list(_gather(text, _atoms(text, max(1, room // 4)), room))
    if overlap_tokens:
        spans = list(_overlapped(text, spans, overlap_tokens))
    return [Piece(ordinal, text[start:end], start, end) for ordinal, (start, end) in enumerate(spans)]


# Atoms


def _atoms(text: str, limit: int) -> Iterator[_Atom]:
    """Yield the atoms of `text` in order, each of at most `limit` tokens. What they leave out is white space."""
    before = 0
    for start, end, paragraph in _paragraphs(text):
        for at, stop, tokens, part in _parts(text, start, end, limit):
            yield _Atom(at, stop, count_tokens(text[before:at]) + tokens, paragraph if at == start else part)
            before = stop


def _paragraphs(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield `(start, end, strength)` of each heading and each paragraph, without the white space around it."""
    after_heading = False
    for start, end in _spans(text):
        is_heading = _is_heading(text, start, end)
        if after_heading:
            yield start, end, _AFTER_HEADING
        else:
            yield start, end, _HEADING if is_heading else _PARAGRAPH
        after_heading = is_heading


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for stop in _PARAGRAPH_END.finditer(text):
        yield from _split_heading(text, *_trim(text, start, stop.start()))
        start = stop.end()
    yield from _split_heading(text, *_trim(text, start, len(text)))


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _split_heading(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Set a Markdown heading apart from the paragraph that follows in the next line."""
    line_end = text.find("\n", start, end)
    if line_end >= 0 and _MARKDOWN_HEADING.match(text, start):
        yield start, line_end
        start, end = _trim(text, line_end, end)
    if start < end:
        yield start, end


def _is_heading(text: str, start: int, end: int) -> bool:
    """A short line by itself that ends no sentence is a heading, or introduces what follows as one does."""
    if _MARKDOWN_HEADING.match(text, start):
        return True
    if end - start > _HEADING_CHARS or text.find("\n", start, end) >= 0:
        return False
    return not text.endswith(_NO_HEADING_ENDS, start, end)


def _parts(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield `(start, end, tokens, strength)` of a paragraph's parts: all of it, or its sentences, or parts of them."""
    if (tokens := count_tokens(text[start:end])) <= limit:
        yield start, end, tokens, _ANYWHERE
        return
    for at, stop, strength in _sentences(text, start, end):
        if (tokens := count_tokens(text[at:stop])) <= limit:
            yield at, stop, tokens, strength
            continue
        for left, right in _words(text, at, stop, max(1, limit // 2)):
            yield left, right, count_tokens(text[left:right]), strength if left == at else _ANYWHERE


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    before = start
    for left, right in _stretches(text, start, end):
        for at, stop in sentences(text[left:right]):
            yield left + at, left + stop, _strength(text, before, left + at)
            before = left + stop


def _stretches(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield stretches of limited length that end with a line if they can, else with a word, else anywhere."""
    while end - start > _STRETCH_CHARS:
        limit = start + _STRETCH_CHARS
        cut = max(text.rfind("\n", start, limit), start) + 1
        if cut == start + 1:
            cut = _word_end(text, start, limit)
        yield start, cut
        start = cut
    yield start, end


def _strength(text: str, before: int, at: int) -> int:
    """Return how good a place `at` is, where the sentence before it ended at `before`."""
    if not _SENTENCE_END.search(text[max(0, before - 8) : before]):
        return _ANYWHERE
    return _LINE if "\n" in text[before:at] else _SENTENCE


def _words(text: str, start: int, end: int, chars: int) -> Iterator[tuple[int, int]]:
    """Yield parts of at most so many characters, cut between words where there are any."""
    while start < end:
        cut = _word_end(text, start, start + chars) if end - start > chars else end
        left, right = _trim(text, start, cut)
        if left < right:
            yield left, right
        start = cut


def _word_end(text: str, start: int, limit: int) -> int:
    """Return where the last whole word before `limit` ends, or `limit` itself in a word that is longer."""
    space = text.rfind(" ", start + 1, limit)
    return space if space > start else limit


# Pieces


def _gather(text: str, atoms: Iterable[_Atom], room: int) -> Iterator[tuple[int, int]]:
    """Yield the span of each piece: as many atoms as fit, cut at the best place among them."""
    piece: list[_Atom] = []
    window: list[_Atom] = []
    total = 0
    for atom in atoms:
        window.append(atom)
        total += atom.tokens
        # The sum overstates, by rounding up each atom: count before believing that it is too much.
        while total > room and (total := _count(text, window)) > room:
            if piece:
                yield _span(piece)
            cut = _best_cut(window, 0.25, 1.0)
            piece, window = window[:cut], window[cut:]
            total = _count(text, window)
    for last in _evened(text, piece, window, room):
        yield _span(last)


def _best_cut(window: list[_Atom], low: float, high: float) -> int:
    """Return the number of atoms before the best place to cut: a real one, not too near an end, strong, late."""
    start, length = window[0].start, window[-1].end - window[0].start

    def worth(number: int) -> tuple[bool, bool, int, int]:
        atom = window[number]
        is_central = low * length <= atom.start - start <= high * length
        return atom.strength > _ANYWHERE, is_central, atom.strength, number

    return max(range(1, len(window)), key=worth)


def _evened(text: str, piece: list[_Atom], rest: list[_Atom], room: int) -> Iterator[list[_Atom]]:
    """Yield the last two pieces; if the very last is a scrap, cut the two anew so that both are worth retrieving."""
    if piece and rest and _count(text, rest) < room // 4:
        both = piece + rest
        if _count(text, both) <= room:
            piece, rest = both, []
        else:
            cut = _best_cut(both, 0.3, 0.7)
            if max(_count(text, both[:cut]), _count(text, both[cut:])) <= room:
                piece, rest = both[:cut], both[cut:]
    yield from (atoms for atoms in (piece, rest) if atoms)


def _count(text: str, atoms: list[_Atom]) -> int:
    return count_tokens(text[atoms[0].start : atoms[-1].end])


def _span(atoms: list[_Atom]) -> tuple[int, int]:
    return atoms[0].start, atoms[-1].end


# Overlap


def _overlapped(text: str, spans: list[tuple[int, int]], overlap_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield the spans, each begun as early as the overlap allows, but later than the one before it began."""
    floor: int | None = None
    for start, end in spans:
        floor = start if floor is None else _reach_back(text, floor, start, overlap_tokens)
        yield floor, end


def _reach_back(text: str, floor: int, start: int, overlap_tokens: int) -> int:
    """Return where the piece that begins at `start` begins with its overlap: at a sentence, else at a word."""
    # A token is at most four characters, so no overlap begins before this.
    window = max(floor, start - 4 * overlap_tokens)
    # The first sentence is cut into by the window, or is where the last piece began: then all of it would come again.
    begins = [window + at for at, _ in sentences(text[window:start])][1:]
    reached, left = start, overlap_tokens
    for at in reversed(begins):
        left -= count_tokens(text[at:reached])
        if left < 0:
            break
        reached = at
    return reached if reached < start else _reach_word(text, max(floor + 1, start - overlap_tokens), start)


def _reach_word(text: str, window: int, start: int) -> int:
    space = _SPACE.search(text, window, start)
    at = space.end() if space else window
    return at if text[at:start].strip() else start
