"""Pieces: always a part of their text, never too long, cut where a reader would cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.engine.indexing.chunk import Piece, chunk
from ragagent.text import count_tokens

# Characters that decide something: ends of sentences, white space of every kind, headings, both scripts.
_ALPHABET = st.sampled_from(list('abC12 .!?。！？；，\n\n\n\t\r\x0b\u2028\u3000#"”’)-汉字的한か😀e\u0301'))
_TEXTS = st.one_of(st.text(_ALPHABET, max_size=600), st.text(max_size=300))


def _texts(pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces]


def _paragraph(number: int, sentences: int) -> str:
    return " ".join(f"Sentence {n} of paragraph {number} has exactly nine words." for n in range(sentences))


@given(text=_TEXTS, max_tokens=st.integers(1, 60), share=st.floats(0, 0.5))
def test_every_piece_is_a_bounded_part_of_its_text(text: str, max_tokens: int, share: float) -> None:
    pieces = chunk(text, max_tokens=max_tokens, overlap_tokens=int(max_tokens * share))
    for number, piece in enumerate(pieces):
        assert piece.ordinal == number
        assert piece.text == text[piece.start : piece.end]
        assert piece.text.strip()
        assert count_tokens(piece.text) <= max_tokens


@given(text=_TEXTS, max_tokens=st.integers(1, 60))
def test_without_overlap_pieces_leave_out_white_space_only(text: str, max_tokens: int) -> None:
    pieces = chunk(text, max_tokens=max_tokens, overlap_tokens=0)
    assert all(left.end <= right.start for left, right in itertools.pairwise(pieces))
    assert "".join("".join(_texts(pieces)).split()) == "".join(text.split())


@given(text=_TEXTS, max_tokens=st.integers(2, 60))
def test_with_overlap_nothing_is_left_out_and_order_is_kept(text: str, max_tokens: int) -> None:
    pieces = chunk(text, max_tokens=max_tokens, overlap_tokens=max_tokens // 2)
    assert all(left.start < right.start and left.end < right.end for left, right in itertools.pairwise(pieces))
    covered = {at for piece in pieces for at in range(piece.start, piece.end)}
    assert all(text[at].isspace() for at in range(len(text)) if at not in covered)


def test_a_short_text_is_one_piece_without_the_space_around_it() -> None:
    assert chunk("\n\n  One thought.  \n", max_tokens=400, overlap_tokens=0) == [Piece(0, "One thought.", 4, 16)]


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\u3000\n"])
def test_blank_text_has_no_pieces(text: str) -> None:
    assert chunk(text, max_tokens=400, overlap_tokens=0) == []


def test_paragraphs_that_fit_are_kept_whole() -> None:
    paragraphs = [_paragraph(number, 6) for number in range(8)]
    for piece in _texts(chunk("\n\n".join(paragraphs), max_tokens=200, overlap_tokens=0)):
        assert all(part in paragraphs for part in piece.split("\n\n"))


def test_long_paragraphs_are_cut_between_sentences() -> None:
    for piece in _texts(chunk(_paragraph(0, 60), max_tokens=100, overlap_tokens=0)):
        assert piece.startswith("Sentence ")
        assert piece.endswith("words.")


def test_chinese_is_cut_between_sentences() -> None:
    text = "".join(f"这是第{number}句话，它的长度适中，内容也很完整。" for number in range(60))
    pieces = _texts(chunk(text, max_tokens=100, overlap_tokens=0))
    assert len(pieces) > 5
    assert all(piece.startswith("这是第") and piece.endswith("。") for piece in pieces)


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = " ".join(f"word{number:04}" for number in range(1000))
    pieces = _texts(chunk(text, max_tokens=100, overlap_tokens=0))
    assert " ".join(pieces) == text
    assert min(map(count_tokens, pieces[:-1])) > 80


@pytest.mark.parametrize("heading", ["## Installation", "Installation", "第三章 安装"])
def test_a_heading_stays_with_what_follows(heading: str) -> None:
    for sentences in range(1, 16):
        text = f"{_paragraph(0, sentences)}\n\n{heading}\n\n{_paragraph(1, 9)}"
        pieces = _texts(chunk(text, max_tokens=150, overlap_tokens=0))
        assert not any(piece.endswith(heading) for piece in pieces)


def test_a_markdown_heading_ends_the_paragraph_above_it_without_a_blank_line() -> None:
    text = f"{_paragraph(0, 6)}\n# Next\n{_paragraph(1, 6)}"
    assert _texts(chunk(text, max_tokens=110, overlap_tokens=0))[1].startswith("# Next\nSentence 0")


def test_sections_begin_their_own_pieces() -> None:
    sections = [f"# Section {number}\n\n{_paragraph(number, 5)}" for number in range(9)]
    pieces = _texts(chunk("\n\n".join(sections), max_tokens=120, overlap_tokens=0))
    assert pieces == sections


def test_small_sections_share_a_piece() -> None:
    sections = [f"# Section {number}\n\n{_paragraph(number, 1)}" for number in range(8)]
    pieces = _texts(chunk("\n\n".join(sections), max_tokens=100, overlap_tokens=0))
    assert len(pieces) < 4
    assert all(piece.startswith("# Section") for piece in pieces)


def test_a_scrap_at_the_end_is_not_left_alone() -> None:
    for sentences in range(8, 40):
        pieces = _texts(chunk(_paragraph(0, sentences), max_tokens=100, overlap_tokens=0))
        assert min(map(count_tokens, pieces)) >= 25


def test_overlap_repeats_whole_sentences() -> None:
    pieces = chunk(_paragraph(0, 40), max_tokens=100, overlap_tokens=30)
    for left, right in itertools.pairwise(pieces):
        shared = left.text[right.start - left.start :]
        assert shared.startswith("Sentence")
        assert 0 < count_tokens(shared) <= 30


def test_text_without_sentences_overlaps_by_words() -> None:
    pieces = chunk("word " * 1000, max_tokens=100, overlap_tokens=20)
    assert all(right.start < left.end for left, right in itertools.pairwise(pieces))
    assert all(piece.text.startswith("word") for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "汉" * 1_000_000,
        "word " * 400_000,
        " " * 2_000_000 + "x" + " " * 2_000_000,
        "\n" * 2_000_000 + "x",
        '."""' * 200_000,
        "# " * 200_000,
    ],
    ids=["one word", "one run of hanzi", "one line", "spaces", "newlines", "quotes", "headings"],
)
def test_hostile_shapes_are_cut_in_linear_time(text: str) -> None:
    """Each takes about a second; where time grew with the square of the length, each would take hours."""
    pieces = chunk(text, max_tokens=400, overlap_tokens=0)
    assert sum(len(piece.text.replace(" ", "")) for piece in pieces) == len("".join(text.split()))


@pytest.mark.parametrize(("max_tokens", "overlap_tokens"), [(0, 0), (100, 51), (100, -1)])
def test_impossible_sizes_are_refused(max_tokens: int, overlap_tokens: int) -> None:
    with pytest.raises(ValueError, match="tokens cannot overlap"):
        chunk("text", max_tokens=max_tokens, overlap_tokens=overlap_tokens)
