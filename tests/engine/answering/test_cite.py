"""Citations: no marker leaves that was not checked, and every quote stands where the citation says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragagent.engine.answering.cite import Citer
from ragagent.types import Evidence

SOURCES = (
    "Paris is the capital of France. It lies on the Seine. The tower was completed in 1889.",
    "北京是中国的首都。人口超过两千万。",
    "Cats sleep most of the day - yesterday as well.",
)
OFFSETS = (100, 2000, 30_000)
EVIDENCE = tuple(
    Evidence(n, "vs", f"file-{n}", f"{n}.txt", 0, text, offset, offset + len(text), {}, 1.0)
    for n, (text, offset) in enumerate(zip(SOURCES, OFFSETS, strict=True), start=1)
)


def cited(*pieces: str) -> Citer:
    citer = Citer(EVIDENCE)
    left = "".join([*map(citer.feed, pieces), citer.finish()])
    assert left == citer.text
    return citer


def statements(citer: Citer) -> list[tuple[str, str]]:
    """Return each cited statement with its quote, having checked that both stand where the citation says."""
    for citation in citer.citations:
        source = EVIDENCE[citation.chunk_id - 1]
        at, stop = citation.source_start - source.start, citation.source_end - source.start
        assert 0 <= at < stop <= len(source.text)
        assert source.text[at:stop] == citation.quote
        assert 0 <= citation.start_index < citation.end_index <= len(citer.text)
        assert 0.0 < citation.score <= 1.0
    return [(citer.text[c.start_index : c.end_index], c.quote) for c in citer.citations]


def test_a_marker_behind_a_sentence_cites_it() -> None:
    citer = cited("Paris is the capital of France [1]. Beijing is not.")
    assert statements(citer) == [("Paris is the capital of France", "Paris is the capital of France")]
    assert citer.text == "Paris is the capital of France [1]. Beijing is not."


def test_the_quote_is_the_sentence_that_carries_most_of_the_statement() -> None:
    citer = cited("In 1889 they completed that tower. [1]")
    assert statements(citer) == [("In 1889 they completed that tower.", "The tower was completed in 1889.")]
    assert citer.citations[0].source_start == 100 + SOURCES[0].index("The tower")


def test_markers_behind_full_stops_do_not_belong_to_the_next_statement() -> None:
    citer = cited("Paris is the capital of France. [1] It lies on the Seine. [1]")
    assert [statement for statement, _ in statements(citer)] == [
        "Paris is the capital of France.",
        "It lies on the Seine.",
    ]


def test_each_marker_within_a_sentence_cites_its_own_part() -> None:
    citer = cited("Paris is the capital of France [1] while cats sleep most of the day [3].")
    assert [statement for statement, _ in statements(citer)] == [
        "Paris is the capital of France",
        "while cats sleep most of the day",
    ]


def test_chinese_statements_are_cited() -> None:
    citer = cited("北京是中国的首都。[2]人口超过两千万[2]。")
    assert statements(citer) == [("北京是中国的首都。", "北京是中国的首都。"), ("人口超过两千万", "人口超过两千万")]


@pytest.mark.parametrize("marker", ["[1]", "【1】", "［1］"])
def test_brackets_of_any_width_mark(marker: str) -> None:
    citer = cited(f"Paris is the capital of France{marker}.")
    assert len(statements(citer)) == 1
    assert marker in citer.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris is the capital of France [9].", "Paris is the capital of France."),
        ("Paris is the capital of France [0].", "Paris is the capital of France."),
        ("Paris is the capital of France [2].", "Paris is the capital of France."),
        ("Rabbits eat carrots【3】。", "Rabbits eat carrots。"),
        ("[1] Paris.", " Paris."),
        ("\n- [3]", "\n-"),
        ("yes [3].", "yes."),
    ],
)
def test_a_marker_that_nothing_supports_is_taken_out(text: str, expected: str) -> None:
    citer = cited(text)
    assert citer.text == expected
    assert citer.dropped == 1


@pytest.mark.parametrize(
    ("marker", "kept", "numbers"),
    [
        (" [1, 3]", " [1]", [1]),
        ("[9,1]", "[1]", [1]),
        ("【1，2】", "[1]", [1]),
        (" [1, 1]", " [1, 1]", [1, 1]),
        (" [2, 3]", "", []),
    ],
)
def test_of_a_list_of_numbers_those_stay_that_are_supported(marker: str, kept: str, numbers: list[int]) -> None:
    citer = cited(f"Paris lies where it is, the capital of France{marker}.")
    assert citer.text == f"Paris lies where it is, the capital of France{kept}."
    if kept:
        assert [citation.chunk_id for citation in citer.citations] == numbers


def test_several_markers_may_stand_behind_one_statement() -> None:
    citer = Citer((EVIDENCE[0], EVIDENCE[0]))
    citer.feed("It lies on the Seine [1][2]. Really [2].")
    citer.finish()
    assert citer.text == "It lies on the Seine [1][2]. Really."
    assert [citer.text[c.start_index : c.end_index] for c in citer.citations] == ["It lies on the Seine"] * 2


@pytest.mark.parametrize("text", ["It was [2018].", "a[i] = b[]", "see [one]", "half [1", "[", "【", "list [1, 2, x]"])
def test_brackets_that_mark_nothing_stay(text: str) -> None:
    assert cited(text).text == text


def test_without_a_marker_the_sentences_that_clearly_have_a_source_are_cited() -> None:
    citer = cited("Indeed. The tower was completed in 1889. Dogs bark.")
    assert statements(citer) == [("The tower was completed in 1889.", "The tower was completed in 1889.")]
    assert citer.text == "Indeed. The tower was completed in 1889. Dogs bark."


def test_white_space_at_the_end_does_not_leave() -> None:
    assert cited("It lies on the Seine. \n").text == "It lies on the Seine."


def test_text_leaves_as_soon_as_it_cannot_become_a_marker() -> None:
    citer = Citer(EVIDENCE)
    assert [citer.feed(piece) for piece in ("It lies on ", "the Seine [", "1", "] and [x", "]")] == [
        "It lies on",
        " the Seine",
        "",
        " [1] and [x",
        "]",
    ]


PARTS = ("Paris is the capital of France", "北京是中国的首都。", "Cats sleep.", "It lies on the Seine", ". ", " ", "\n")
MARKS = ("[1]", " [2]", "【3】", "[1, 2]", "[9]", "[", "]", "1", "[1", ",", "-", "?")
answers = st.lists(st.sampled_from(PARTS) | st.sampled_from(MARKS), max_size=12)


@given(answers)
@example(["Paris is the capital of France", ".", "[1]"])
def test_however_the_text_is_cut_into_pieces_the_outcome_is_the_same(answer: list[str]) -> None:
    whole = cited("".join(answer))
    by_character = cited(*"".join(answer))
    by_piece = cited(*answer)
    assert whole.text == by_character.text == by_piece.text
    assert statements(whole) == statements(by_character) == statements(by_piece)
