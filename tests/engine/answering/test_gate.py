"""The evidence gate on corpora that fit on a screen."""

from __future__ import annotations

import pytest

from ragagent.engine.answering.gate import BACKGROUND, coverage, is_supported
from ragagent.engine.retrieval.found import Found
from ragagent.engine.retrieval.retrieve import Retrieval
from ragagent.text import tokens
from ragagent.types import Evidence

CHUNKS = (
    "The Eiffel Tower in Paris was completed in 1889.",
    "The tower is 330 metres tall.",
    "埃菲尔铁塔位于法国巴黎，建成于1889年。",
)
LEAST = 0.42


def evidence(text: str, dense: float | None = None) -> Evidence:
    return Evidence(1, "vs", "file", "a.txt", 0, text, 0, len(text), {}, 1.0, dense)


def retrieval(question: str, *found: str, dense: float | None = None) -> Retrieval:
    frequencies = {token: sum(token in tokens(text) for text in CHUNKS) for token in tokens(question)}
    return Retrieval(
        tuple(evidence(text, dense) for text in found), Found((), {}, {}, frequencies, len(CHUNKS)), "miss"
    )


def supported(
    question: str, *found: str, least: float = LEAST, cosine: float = 0.0, dense: float | None = None
) -> bool:
    return is_supported(question, retrieval(question, *found, dense=dense), least, cosine)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was the Eiffel Tower completed?", True),
        ("How tall is the tower?", True),
        ("Who painted the Mona Lisa?", False),
        ("What is the boiling point of water?", False),
        ("埃菲尔铁塔在哪里？", True),
        ("谁发明了电话？", False),
    ],
)
def test_it_lets_through_what_the_corpus_speaks_of_and_nothing_else(question: str, expected: bool) -> None:
    assert supported(question, *CHUNKS) == expected


def test_without_evidence_there_is_no_answer() -> None:
    assert not supported("When was the Eiffel Tower completed?", least=0.0)


def test_coverage_is_that_of_the_best_chunk_and_not_of_all_together() -> None:
    question = "Eiffel metres"
    alone = [coverage(question, retrieval(question, text)) for text in CHUNKS[:2]]
    assert coverage(question, retrieval(question, *CHUNKS)) == max(alone) < 1.0


def test_coverage_runs_from_nothing_to_all() -> None:
    assert coverage("Eiffel Tower", retrieval("Eiffel Tower", CHUNKS[0])) == 1.0
    assert coverage("Mona Lisa", retrieval("Mona Lisa", CHUNKS[0])) == 0.0


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    question = "tower 1889"
    found = Retrieval((evidence("tower"), evidence("1889")), Found((), {}, {}, {"tower": 90, "1889": 1}, 100), "miss")
    rare = Retrieval(found.evidence[1:], found.found, "miss")
    common = Retrieval(found.evidence[:1], found.found, "miss")
    assert coverage(question, rare) > coverage(question, common)


def test_only_the_best_chunks_count() -> None:
    assert not supported("Eiffel Tower", *["nothing of it"] * 5, CHUNKS[0])


def test_a_question_of_stop_words_is_judged_by_them() -> None:
    assert supported("who are you", "who are you")
    assert not supported("who are you", "something else")


def test_a_question_without_a_word_has_no_support() -> None:
    assert not supported("？！", *CHUNKS)


def test_a_close_vector_passes_when_that_is_asked_for() -> None:
    assert supported("Mona Lisa", CHUNKS[0], cosine=0.8, dense=0.8)
    assert not supported("Mona Lisa", CHUNKS[0], cosine=0.8, dense=0.79)
    assert not supported("Mona Lisa", CHUNKS[0], cosine=0.0, dense=1.0)


@pytest.mark.parametrize("frequency", [3 + BACKGROUND, 10_000])
def test_chunks_that_the_index_has_yet_to_forget_do_not_turn_a_weight_over(frequency: int) -> None:
    # A replaced chunk goes on counting: a word can stand in more chunks than there are.
    found = Found((), {}, {}, {"eiffel": 1, "tower": frequency}, 3)
    covered = [coverage("Eiffel Tower", Retrieval((evidence(text),), found, "miss")) for text in ("eiffel", "tower")]
    assert sum(covered) == pytest.approx(1.0)
    assert 0.0 < covered[1] < covered[0] < 1.0
