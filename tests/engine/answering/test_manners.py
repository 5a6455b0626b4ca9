from __future__ import annotations

import pytest

from ragagent.engine.answering import manners


@pytest.mark.parametrize(
    ("said", "left", "was_indirect"),
    [
        ("who is it", "who is it", False),
        ("please tell me who it is", "who it is", True),
        ("hi could you please tell me who it is", "who it is", True),
        ("hello what is it", "what is it", False),
        ("i wonder who it is", "who it is", True),
        ("do you know english", "do you know english", False),
        ("hello kitty", "hello kitty", False),
        ("please please me", "please please me", False),
        ("tell me", "tell me", False),
    ],
)
def test_phrases_go_where_a_question_follows(said: str, left: str, was_indirect: bool) -> None:
    assert manners.without(said.split()) == (left.split(), was_indirect)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("请问谁来了", "谁来了"),
        ("你能告诉我谁来了吗", "谁来了"),
        ("请问谁来了吗", "谁来了吗"),
        ("他来了吗", "他来了"),
        ("他睡觉呢", "他睡觉呢"),
        ("谁睡觉呢", "谁睡觉"),
        ("什么是羊毛呢", "什么是羊毛呢"),
        ("他干吗", "他干吗"),
        ("请问", "请问"),
    ],
)
def test_chinese_phrases_and_particles(said: str, left: str) -> None:
    assert "".join(manners.without(list(said))[0]) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("hello, who is it?", "who is it?"),
        ("hello, dolly", "hello, dolly"),
        ("who is it? thank you!", "who is it"),
        ("how do you say please?", "how do you say please?"),
        ("你好，它是谁。谢谢".replace("，", ","), "它是谁"),
    ],
)
def test_greetings_and_thanks_are_set_off_by_punctuation(text: str, left: str) -> None:
    assert manners.without_greeting(text) == left
