"""What two questions must have in common to share an answer, and what they need not."""

from __future__ import annotations

from collections import Counter

import pytest

import xquad
from caching import pairs
from ragagent.engine.answering.wording import spelling, wording

MUST_REFUSE = pairs.must_refuse()


def test_there_are_pairs_of_every_kind_in_both_languages() -> None:
    assert len(set(MUST_REFUSE)) == len(MUST_REFUSE) >= 500
    kinds = Counter(pair.kind for pair in MUST_REFUSE)
    assert min(kinds.values()) >= 4
    assert sum(not pair.one.isascii() for pair in MUST_REFUSE) >= 200


@pytest.mark.parametrize("kind", sorted({pair.kind for pair in MUST_REFUSE}))
def test_one_thing_that_differs_makes_another_question(kind: str) -> None:
    assert [pair for pair in MUST_REFUSE if pair.kind == kind and wording(pair.one) == wording(pair.other)] == []


def test_a_real_question_with_one_thing_replaced_is_another() -> None:
    real = {language: [question.text for question in xquad.load(language).questions[::7]] for language in ("en", "zh")}
    found = list(pairs.of_real(real["en"], real["zh"]))
    assert len(found) >= 500
    assert [pair for pair in found if wording(pair.one) == wording(pair.other)] == []


@pytest.mark.parametrize(
    ("language", "name"), [(language, name) for language in pairs.VARIANTS for name in pairs.VARIANTS[language]]
)
def test_nearly_every_real_question_is_known_in_other_clothes(language: str, name: str) -> None:
    questions = [question.text for question in xquad.load(language).questions[::7]]
    dressed = pairs.VARIANTS[language][name]
    assert sum(wording(text) == wording(dressed(text)) for text in questions) >= 0.95 * len(questions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("When was the bridge built?", "Could you tell me when the bridge was built, please?"),
        ("What is the capital of Peru?", "Can you tell me what the capital of Peru is?"),
        ("When was it?", "Do you know when it was?"),
        ("Who wrote Hamlet?", "hello please tell me who wrote Hamlet"),
        ("谁来了？", "你能告诉我谁来了吗？"),
        ("他死了？", "他死了吗？"),
        ("Say (what is it?)", "say what is it"),
        ("Why isn’t it open?", "why isn't it open"),
        ("What's the capital of Peru?", "What is the capital of Peru"),
        ("Can't it fly?", "cannot it fly"),
        ("How far is 1,000 km?", "How far is 1000 km?"),
        ("Is ５㎏ much？", "Is 5kg much?"),
        ("What does “TLS” mean?", "what does 'TLS' mean"),
        ("What is C++?", "hey, what is C++ ?"),
        ("How wide is it (in feet)?", "How wide is it in feet?"),
        ("法国的首都是哪里？", "你好，请问法国的首都是哪里呢？"),
        ("马丁·路德·金是谁？", "马丁路德金是谁"),
        ("《红楼梦》的作者是谁？", "我想知道红楼梦的作者是谁，谢谢！"),
        ("Python3.11支持吗", "Ｐｙｔｈｏｎ3.11 支 持 ？"),
        ("What is zero\u200bwidth?", "what is zerowidth"),
    ],
)
def test_the_same_question(one: str, other: str) -> None:
    assert wording(one) == wording(other) != ""


@pytest.mark.parametrize("text", ["", "  ", "?!", "。", "\u200b"])
def test_what_says_nothing_has_no_wording(text: str) -> None:
    assert wording(text) == ""


@pytest.mark.parametrize("text", ["please", "tell me", "请问", "吗", "hello please tell me", "can you tell me", "谢谢"])
def test_nothing_but_manners_is_taken_at_its_word(text: str) -> None:
    assert wording(text) != ""


@pytest.mark.parametrize(
    "text",
    ["a " * 20_000, "-" * 40_000, "please " * 6_000, "什么" * 20_000, "'" * 40_000, "1," * 20_000, ", thanks" * 5_000],
)
@pytest.mark.timeout(10)
def test_a_long_question_takes_no_square_of_its_length(text: str) -> None:
    wording(text)


def test_the_spelling_keeps_manners_and_loses_what_an_embedder_must_not_see() -> None:
    assert spelling("ＰＬＥＡＳＥ tell me:  Who IS it？") == "please tell me who is it"
    assert spelling("请问，Python 是 什么？") == "请问 python 是什么"
