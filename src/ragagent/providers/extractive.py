"""The built-in answerer: it writes nothing of its own, it quotes. One to three sentences of the evidence, with markers.

A sentence is worth the part of the question that it covers, each word by its rarity in the evidence; what the question
asks for (a number, a date, a name) and a good rank count a little. Deterministic: the same prompt, the same answer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from ragagent import config
from ragagent.providers.base import Delta, FinishReason
from ragagent.text import content_tokens, count_tokens, normalize, sentences
from ragagent.types import Evidence, Language, Prompt, Usage

_MAX_SENTENCES = 3
_LEAST_GAIN = 0.15  # of the question, that a further sentence has to add
_LEAST_GAIN_OF_A_LINE = 0.3  # ... and a line that is none, such as a table's header, which has a word of everything
_RANK_BONUS = 0.1  # for the best chunk; the next gets half of it, and so on
_TYPE_BONUS = 0.15
_EXACT_BONUS = 0.1  # for the question's words as they are: a stem takes a generator for a generation
_NO_SENTENCE = 0.6  # what a heading or a bare line is worth, compared with a sentence

# What the question asks for, and how a sentence looks that holds it.
_ASKS_NUMBER = re.compile(
    r"\bhow (many|much|long|far|old|often|tall|high|large|big)\b|\bwhat (percent\w*|number|amount)\b"
    r"|多少|几|多[大长高远久]"
)
_HOLDS_NUMBER = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million|half)\b"
    r"|[一二三四五六七八九十百千万亿两]"
)
_ASKS_TIME = re.compile(
    r"\bwhen\b|\bwhat (year|date|day|month|century|decade)\b|何时|什么时候|哪一?[年天月]|几[年月日]|时间"
)
_HOLDS_TIME = re.compile(
    r"\b\d{3,4}s?\b|\b(January|February|March|April|May|June|July|August|September|October|November|December)\b"
    r"|century|\d+\s*[年月日]|世纪|年代"
)
_ASKS_PERSON = re.compile(r"\b(who|whom|whose)\b|谁|哪位|什么人")
_HOLDS_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|·")
_TYPES = ((_ASKS_NUMBER, _HOLDS_NUMBER), (_ASKS_TIME, _HOLDS_TIME), (_ASKS_PERSON, _HOLDS_NAME))
# A sentence that begins so leans on the one before it, which says who or what is meant.
_LEANS = re.compile(r"(He|She|It|They|This|These|His|Her|Its|Their)\b|[他她它这该其此]")
_WORD = re.compile(r"[^\W\d_]{5,}")
_ENDS_SENTENCE = re.compile(r"[.!?。！？；…][\"'”’」』）)\]]*$")
_STREAMED = re.compile(r"\s*[\u3000-\u9fff\uff00-\uffef]{1,4}|\s*[^\s\u3000-\u9fff\uff00-\uffef]+|\s+")


@dataclass(frozen=True, slots=True)
class _Sentence:
    rank: int  # of its chunk, 0 first
    start: int
    text: str
    tokens: frozenset[str]


class Extractive:
    def __init__(self, settings: config.Generator) -> None:
        self.model = settings.model
        self.identity = repr(("extractive", settings.model))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        spent, limit = 0, prompt.max_tokens
        finish_reason: FinishReason = "stop"
        for piece in _STREAMED.findall(answer(prompt.question, prompt.language, prompt.evidence)):
            tokens = count_tokens(piece)
            if limit is not None and spent + tokens > limit:
                finish_reason = "length"
                break
            spent += tokens
            yield Delta(piece)
        asked = sum(count_tokens(message.content) for message in prompt.messages)
        yield Delta(usage=Usage(asked, spent), finish_reason=finish_reason)

    async def aclose(self) -> None:
        return None


def answer(question: str, language: Language, evidence: Sequence[Evidence]) -> str:
    """Return the sentences that answer best, word for word, each with its marker; "" where there is no evidence."""
    candidates = [sentence for rank, item in enumerate(evidence) for sentence in _read(rank, item)]
    chosen = _supported(_choose(question, candidates), candidates)
    text = ""
    for sentence in _in_order(chosen):
        text += (
            f"{sentence.text} [{sentence.rank + 1}]" if language == "en" else f"{sentence.text}[{sentence.rank + 1}]"
        )
        # Without its own end, a sentence would run into the next.
        ends = _ENDS_SENTENCE.search(sentence.text)
        text += "\n" if not ends else " " if language == "en" else ""
    return text.rstrip()


def _read(rank: int, item: Evidence) -> Iterator[_Sentence]:
    for start, end in sentences(item.text):
        text = item.text[start:end]
        yield _Sentence(rank, start, " ".join(text.split()), frozenset(content_tokens(text)))


def _choose(question: str, candidates: list[_Sentence]) -> list[_Sentence]:
    """Return the best sentence first, then those that cover what of the question is still uncovered."""
    candidates = [sentence for sentence in candidates if not _asks(question, sentence)] or candidates
    weights = _weights(content_tokens(question), candidates)
    bonus = {sentence: _bonus(question, sentence) for sentence in candidates}
    open_tokens = set(weights)
    chosen: list[_Sentence] = []
    while candidates and len(chosen) < _MAX_SENTENCES:
        best = max(candidates, key=lambda sentence: _worth(sentence, open_tokens, weights) + bonus[sentence])
        if chosen and _worth(best, open_tokens, weights) < _least_gain(best):
            break
        chosen.append(best)
        open_tokens -= best.tokens
        candidates = [sentence for sentence in candidates if sentence is not best]
    return chosen


def _asks(question: str, sentence: _Sentence) -> bool:
    """Return whether the sentence is a question itself, or quotes ours: it covers every word, and answers nothing."""
    return sentence.text.endswith(("?", "？")) or normalize(question) in normalize(sentence.text)


def _supported(chosen: list[_Sentence], candidates: list[_Sentence]) -> list[_Sentence]:
    """Put before the best sentence the one that it leans on, in the place of the least of the chosen if need be."""
    if not chosen or not _LEANS.match(chosen[0].text):
        return chosen
    at = candidates.index(chosen[0])
    before = candidates[at - 1] if at and candidates[at - 1].rank == chosen[0].rank else None
    if before is None or before in chosen:
        return chosen
    return [before, *chosen[: _MAX_SENTENCES - 1]]


def _in_order(chosen: Sequence[_Sentence]) -> list[_Sentence]:
    """Return the sentences as they were chosen, but those of one chunk together and as they stand in it."""
    ranks = list(dict.fromkeys(sentence.rank for sentence in chosen))
    return sorted(chosen, key=lambda sentence: (ranks.index(sentence.rank), sentence.start))


def _weights(tokens: set[str], candidates: Sequence[_Sentence]) -> dict[str, float]:
    """Return each token's share of the question: the rarer it is among the sentences, the more it says."""
    holders = Counter(token for sentence in candidates for token in sentence.tokens & tokens)
    rarity = {token: math.log(1 + (len(candidates) + 1) / (holders[token] + 0.5)) for token in tokens if holders[token]}
    total = sum(rarity.values())
    return {token: value / total for token, value in rarity.items()}


def _worth(sentence: _Sentence, open_tokens: set[str], weights: dict[str, float]) -> float:
    covered = math.fsum(weights[token] for token in sentence.tokens & open_tokens)
    return covered if _ENDS_SENTENCE.search(sentence.text) else covered * _NO_SENTENCE


def _least_gain(sentence: _Sentence) -> float:
    return _LEAST_GAIN if _ENDS_SENTENCE.search(sentence.text) else _LEAST_GAIN_OF_A_LINE


def _bonus(question: str, sentence: _Sentence) -> float:
    asked = question.lower()
    fits = any(asks.search(asked) and holds.search(sentence.text) for asks, holds in _TYPES)
    words = set(_WORD.findall(asked))
    exact = len(words & set(_WORD.findall(sentence.text.lower()))) / len(words) if words else 0.0
    return _RANK_BONUS / (1 + sentence.rank) + (_TYPE_BONUS if fits else 0.0) + _EXACT_BONUS * exact
