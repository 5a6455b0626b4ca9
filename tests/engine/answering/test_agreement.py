from __future__ import annotations

import pytest

from ragagent.engine.answering.agreement import agree
from ragagent.types import Answer, Citation, Usage


def answer(text: str, *chunks: int, state: str = "found") -> Answer:
    citations = tuple(Citation("file-1", "a.txt", chunk, "quote", 0, 1, 0, 1, 1.0) for chunk in chunks)
    return Answer(text, citations, state, "m", Usage(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (answer("It opened in 2000 [1].", 1), answer("it opened in 2000", 2)),
        (answer("It opened in 2000 [1].", 1, 2), answer("In 2000, on 1 July [1].", 1)),
        (answer("Yes, it does.", 1), answer("Yes: see the manual.", 1)),
        (answer("I do not know.", state="none"), answer("Nothing was found.", state="none")),
        (answer("It joins Copenhagen with Malmö."), answer("Copenhagen and Malmö.", 3)),
    ],
)
def test_other_words_for_the_same(one: Answer, other: Answer) -> None:
    assert agree(one, other)
    assert agree(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (answer("It opened in 2000.", 1), answer("I do not know.", state="none")),
        (answer("It opened in 2000 [1].", 1), answer("It was opened in 2001 [1].", 1)),
        (answer("The bridge.", 1), answer("The wall.", 2)),
        (answer("Yes, it does.", 1), answer("No, it does not.", 1)),
        (answer("是的，支持。", 1), answer("不支持。", 1)),
    ],
)
def test_what_one_of_the_two_askers_would_call_wrong(one: Answer, other: Answer) -> None:
    assert not agree(one, other)
    assert not agree(other, one)
