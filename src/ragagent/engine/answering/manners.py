"""Phrases of politeness: what people say around a question, in English and Chinese, and what it does not change.

A phrase is taken off only where it cannot be what is asked about: "Hello Kitty", "Please Please Me" and "How do you say
please?" keep theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

QUESTION_WORDS = frozenset("what when where who whom whose which why how".split())
AUXILIARIES = frozenset(
    "is are am was were do does did has have had can could will would shall should may might must".split()
)
_ASKS_IN_CHINESE = frozenset("什谁哪怎几何多咋")  # one of them stands in every question that is not yes or no


def _phrases(*given: str) -> list[tuple[str, ...]]:
    """Return English phrases by words, Chinese ones by characters."""
    return [tuple(phrase.split() if phrase.isascii() else phrase) for phrase in given]


# The question, or what is asked for, follows.
_TELL = _phrases(
    *(f"{modal} you tell me" for modal in ("can", "could", "would", "will")),
    *(f"{modal} you please tell me" for modal in ("can", "could", "would", "will")),
    *("tell me", "please tell me", "kindly tell me", "can someone tell me", "can anyone tell me", "may i ask"),
    *("请问一下", "请问", "请告诉我", "请你告诉我", "请您告诉我", "告诉我", "麻烦告诉我", "麻烦问一下"),
    *("想问一下", "我想问一下", "我想问", "请教一下"),
)  # fmt: skip
# A question follows: "Do you know English?" is one of its own.
_KNOW = _phrases(
    *("i want to know", "i would like to know", "i'd like to know", "i need to know", "i wonder", "i am wondering"),
    *("do you know", "does anyone know", "let me know", "would you mind telling me"),
    *("我想知道", "想知道"),
)
# These end with 吗, which belongs to them.
_WHETHER = _phrases(
    *("能告诉我", "能不能告诉我", "可以告诉我", "可否告诉我", "你能告诉我", "您能告诉我", "你能不能告诉我"),
    *("您能不能告诉我", "你可以告诉我", "您可以告诉我", "你知道", "您知道"),
)
_ASKING = sorted([*_TELL, *_KNOW, *_WHETHER], key=len, reverse=True)  # the longest that fits
_NEEDS_QUESTION = frozenset([*_KNOW, *_WHETHER])
_LONGEST = len(_ASKING[0])

# Before a word that begins a question or a request.
_GREETING = frozenset("please pls kindly hi hello hey".split())
_BEGINS = (
    _GREETING
    | QUESTION_WORDS
    | AUXILIARIES
    | {phrase[0] for phrase in _ASKING if phrase[0].isascii()}
    | set("explain describe list show give name compare summarize summarise define".split())
    | set("if whether in on at during after before according under".split())
)
# Set off by punctuation.
_THANKS = re.compile(r"[,.?!;。]\s*(?:please|pls|(?:many )?thanks|thank you|thx|谢谢[你您]?)[\s.?!。]*\Z")
_HELLO = re.compile(
    r"\A\s*(?:[你您]好[\s,.!。]+"
    rf"|(?:hi|hello|hey)(?: there)?[,.!]\s+(?=.*\b(?:{'|'.join(sorted(QUESTION_WORDS))})\b))"
)


def without_greeting(text: str) -> str:
    """Return the text, in lower case and half width, without a greeting before it and thanks after it."""
    return _HELLO.sub("", _THANKS.sub("", text, count=1), count=1)


def without(words: Sequence[str]) -> tuple[list[str], bool]:
    """Return the words without phrases before them and particles after them, and whether they were asked indirectly."""
    left = list(words)
    was_asked, has_own_particle = False, False
    while left:
        phrase = _phrase(left)
        if phrase:
            del left[: len(phrase)]
            was_asked, has_own_particle = True, has_own_particle or phrase in _WHETHER
        elif left[0] in _GREETING and len(left) > 1 and left[1] != left[0] and left[1] in _BEGINS:
            del left[0]
        else:
            break
    return _without_particle(left, has_own_particle), was_asked


def _phrase(words: Sequence[str]) -> tuple[str, ...]:
    """Return the phrase that the words begin with, empty for none. Something must follow it."""
    head = tuple(words[:_LONGEST])
    phrase = next((phrase for phrase in _ASKING if head[: len(phrase)] == phrase), ())
    rest = words[len(phrase) :]
    if not rest or (phrase in _NEEDS_QUESTION and not _is_question(rest)):
        return ()
    return phrase


def _is_question(words: Sequence[str]) -> bool:
    return words[0] in AUXILIARIES or any(word in QUESTION_WORDS or word in _ASKS_IN_CHINESE for word in words)


def _without_particle(words: list[str], has_own: bool) -> list[str]:
    """Return the words without the particle at their end, where it says nothing.

    吗 asks for yes or no: 谁来了吗 (did anybody come?) is not 谁来了 (who came?). 呢 and its like say nothing in what
    is a question without them: 他睡觉呢 (he is asleep) is not 他睡觉吗 (does he sleep?).
    """
    if len(words) < 3:
        return words
    asks = not _ASKS_IN_CHINESE.isdisjoint(words)
    if words[-1] == "吗" and words[-2] != "干" and (has_own or not asks):
        return words[:-1]
    return words[:-1] if words[-1] in ("呢", "呀", "啊") and words[-2] != "毛" and asks else words
