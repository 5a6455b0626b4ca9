"""Whether two questions say the same: their words without their manners, compared one by one.

An embedder cannot tell. The built-in one is an average of words: "Did France invade Germany?" and "Did Germany invade
France?" have a cosine of 1, and better ones put "is" and "is not" at 0.95 and above. So what may differ between two
questions is listed here, and everything else must be the same, in the same order:

    case, width, white space, and the punctuation around words (inside them it is content: 3.11, C++, -5, 10², a/b)
    phrases of politeness at the beginning and the end, and the particles that end a Chinese question
    where "is" stands in a question that was asked indirectly: "tell me when the bridge was built"

No word inside a question is a stop word, and none is stemmed. Each candidate that we tried makes two questions one:
"What is (the) time?", "Is hepatitis (A) dangerous?", "(the) Office", "universe" and "university", "他爱(的)人是谁".
`python bench/caching/semantic.py` counts what each rule would cost. In doubt, two questions are two: a hit that is
missed costs a computation, a false one is a wrong answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ragagent.engine.answering import manners

# Characters that need no space between them. Not Korean's: 아버지가 방에 is not 아버지 가방에.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_CHARACTER = re.compile(f"[{_CJK}]")
_PIECE = re.compile(rf"[{_CJK}]|[^{_CJK}]+")
# A clause ends so where Chinese stands on one side; between digits and Latin letters it may be a number, 1,000 or 3:2.
_CLAUSE_END = re.compile(rf"(?<=[{_CJK}])[,;:!?.]+|(?<![\d{_CJK}])[,;:]+(?=[{_CJK}])|[。｡]")
_NAME_DOT = re.compile(rf"(?<=[{_CJK}])\s*[·・•]\s*(?=[{_CJK}])")  # 马丁·路德·金, which many type without
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_DASHES = re.compile("[\u2010-\u2015\u2212]")

_UNIFORM = str.maketrans(
    {**dict.fromkeys("‘’‛′`", "'"), **dict.fromkeys("“”„‟″", '"'), **dict.fromkeys("《》〈〉「」『』【】〔〕«»", " ")}
)
# NFKC would make 102 of 10², and 11⁄2 of 1½: such characters get a mark first.
_MARKS = {"<super>": "^", "<sub>": "_", "<fraction>": "+", "<circle>": "@"}
_AROUND = "\"'()[]{}¿¡"
_ENDS_QUESTION, _ENDS_CLAUSE = ".?!,;:…", ".,;:…"  # "save!" and "empty?" are names, within a question

_CONTRACTED = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "i'm": "i am"}
_HAS_IS = manners.QUESTION_WORDS | {"it", "that", "there", "here", "he", "she"}
_ENDINGS = {"n't": "not", "'re": "are", "'ll": "will", "'ve": "have"}
_IS = frozenset("is are am was were".split())


def wording(question: str) -> str:
    """Return what the question says, equal for all that say the same; empty for one that says nothing.

    Linear in the question's length.
    """
    said, was_indirect = manners.without(_spelled_out(_words(_uniform(question))))
    return " ".join(_direct(said) if was_indirect else said)


def spelling(question: str) -> str:
    """Return the question in the one spelling, its manners included: what an embedder is asked about.

    Embedders see case and width. The built-in one puts a question and the same in capitals at a cosine of 0.3.
    """
    words = _words(_uniform(question))
    return "".join(word if _is_run(before, word) else f" {word}" for before, word in pairwise(["", *words])).strip()


def _is_run(before: str, word: str) -> bool:
    return bool(_CHARACTER.match(before) and _CHARACTER.match(word))


def _uniform(question: str) -> str:
    """Return one spelling of what differs in form alone: width, case, quotation marks, dashes, 1,000 and 1000.

    Thanks and greetings go here: only the punctuation tells them from words that are asked about.
    """
    marked = "".join(map(_marked, question)) if not question.isascii() else question
    text = unicodedata.normalize("NFKC", marked).casefold().translate(_UNIFORM)
    text = _DASHES.sub("-", manners.without_greeting(text))
    text = _CLAUSE_END.sub(" ", _NAME_DOT.sub("", text))
    return _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)


def _marked(character: str) -> str:
    if character.isascii():
        return character
    if unicodedata.category(character) == "Cf":
        return ""  # zero-width characters, direction marks
    return _MARKS.get(unicodedata.decomposition(character).partition(" ")[0], "") + character


def _words(text: str) -> list[str]:
    """Return what stands between white space, less the punctuation around it; CJK characters one by one."""
    # A lone mark after a number is a unit: 5' is no 5".
    units = "".join(mark for mark in "'\"" if text.count(mark) % 2)
    pieces = [piece for chunk in text.split() for piece in _PIECE.findall(chunk)]
    return list(_trimmed(pieces, units))


def _trimmed(pieces: Sequence[str], units: str) -> Iterator[str]:
    for at, piece in enumerate(pieces):
        if at == len(pieces) - 1:
            piece = _within(piece, _ENDS_QUESTION, units)
        elif any(map(str.isalnum, piece)):  # Else it is a mark that stands for itself: "What does ; mean?"
            piece = _within(piece, _ENDS_CLAUSE, units)
        if piece:
            yield piece


def _within(piece: str, ends: str, units: str) -> str:
    """Return the piece less what is around it; what quotes or brackets hold stays, though it be a mark."""
    word = _without(piece, ends, units)
    inner = _without(word.lstrip(_AROUND), _AROUND, units)
    if not inner:
        return word  # {} or ()
    return _without(inner, ends, units) or inner


def _without(word: str, marks: str, units: str) -> str:
    """Return the word less these marks at its end, but for one that belongs to the number before it: 5! is not 5."""
    end = len(word)
    while end and word[end - 1] in marks and not (word[end - 1] in f"!{units}" and word[end - 2 : end - 1].isdigit()):
        end -= 1
    return word[:end]


def _spelled_out(words: Sequence[str]) -> list[str]:
    """Return the words with contractions in full, so that no "not" hides in one."""
    found: list[str] = []
    for word in words:
        head, ending = word[:-3], word[-3:]
        if word in _CONTRACTED:
            found += _CONTRACTED[word].split()
        elif ending in _ENDINGS and head:
            found += [head, _ENDINGS[ending]]
        elif word.endswith("'s") and word[:-2] in _HAS_IS:
            found += [word[:-2], "is"]
        else:
            found.append(word)
    return found


def _direct(words: Sequence[str]) -> list[str]:
    """Return "when was the bridge built" of "when the bridge was built".

    Only where there is one verb that can have moved, and it could not have come from elsewhere: "which users delete
    files they can create" is not "which users can delete files they create".
    """
    found = [at for at, word in enumerate(words) if word in manners.AUXILIARIES]
    if len(found) != 1 or words[0] not in manners.QUESTION_WORDS:
        return list(words)
    (at,) = found
    if at < 2 or at < len(words) - 2 or words[at] not in _IS:
        return list(words)
    return [words[0], words[at], *words[1:at], *words[at + 1 :]]
