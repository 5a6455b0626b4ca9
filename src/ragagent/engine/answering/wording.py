"""Whether two questions say the same: their words without their manners, compared one by one.

An embedder cannot tell. The built-in one is an average of words: "Did France invade Germany?" and "Did Germany invade
France?" have a cosine of 1, and better ones put "is" and "is not" at 0.95 and above. So what may differ between two
questions is listed here, and everything else must be the same, in the same order:

    case, width, white space, and the punctuation around words (inside them it is content: 3.11, C++, -5, 10², a/b)
    phrases of politeness at the beginning and the end, and the particles that end a Chinese question
    where the auxiliaries stand: "tell me when the bridge was built" asks "when was the bridge built?"

No word inside a question is a stop word, and none is stemmed. Each candidate that we tried makes two questions one:
"What is (the) time?", "Is hepatitis (A) dangerous?", "(the) Office", "universe" and "university", "他爱(的)人是谁".
`python bench/caching/semantic.py` counts what each rule would cost.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0002fa1f"
_CHARACTER = re.compile(f"[{_CJK}]")
_PIECE = re.compile(rf"[{_CJK}]|[^{_CJK}]+")
# A clause ends so where Chinese stands on one side; between digits and Latin letters it may be a number, 1,000 or 3:2.
_CLAUSE_END = re.compile(rf"(?<=[{_CJK}])[,;:!?.]+|(?<![\d{_CJK}])[,;:!?]+(?=[{_CJK}])|[。｡]")
_NAME_DOT = re.compile(rf"(?<=[{_CJK}])\s*[·・•]\s*(?=[{_CJK}])")  # 马丁·路德·金, which many type without
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_DASHES = re.compile("[\u2010-\u2015\u2212]")

_UNIFORM = str.maketrans(
    {**dict.fromkeys("‘’‛′`", "'"), **dict.fromkeys("“”„‟″", '"'), **dict.fromkeys("《》〈〉「」『』【】〔〕«»", " ")}
)
# NFKC would make 10² of 102, and 1½ of 11⁄2: such characters get a mark first.
_MARKS = {"<super>": "^", "<sub>": "_", "<fraction>": "+", "<circle>": "@"}
_OPENING, _CLOSING = "\"'([{¿¡…", "\"')]}.,;:?!…"

AUXILIARIES = frozenset(
    "is are am was were do does did has have had can could will would shall should may might must".split()
)
_QUESTION_WORDS = frozenset("what when where who whom whose which why how".split())
_CONTRACTED = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "i'm": "i am"}
_HAS_IS = _QUESTION_WORDS | {"it", "that", "there", "here", "he", "she"}
_ENDINGS = {"n't": "not", "'re": "are", "'ll": "will", "'ve": "have"}

# What may stand before a question. Longest first: the first that fits is taken off, and then perhaps another.
_ASKING = tuple(
    sorted(
        (
            tuple(phrase.split())
            for phrase in (
                *(f"{modal} you{kindly} tell me" for modal in ("can", "could", "would", "will")
                  for kindly in ("", " please", " kindly")),
                *(f"{tell} me" for tell in ("tell", "please tell", "kindly tell")),
                *("can someone tell me", "can anyone tell me", "does anyone know", "do you know", "may i ask"),
                *("i want to know", "i would like to know", "i'd like to know", "i need to know", "i wonder"),
                *("i am wondering", "let me know", "let me ask", "would you mind telling me", "excuse me"),
                *(" ".join(phrase) for phrase in (
                    *("请问一下", "请问", "请告诉我", "请你告诉我", "请您告诉我", "告诉我", "麻烦告诉我", "麻烦问一下"),
                    *("能告诉我", "能不能告诉我", "可以告诉我", "可否告诉我", "你能告诉我", "您能告诉我"),
                    *("你能不能告诉我", "您能不能告诉我", "你可以告诉我", "您可以告诉我", "想问一下", "我想问一下"),
                    *("我想问", "我想知道", "想知道", "请教一下", "你知道", "您知道"),
                )),
            )
        ),
        key=len,
        reverse=True,
    )
)  # fmt: skip
# Before a word that begins a request. "Please Please Me" and "Hello Kitty" keep theirs.
_GREETING = frozenset("please pls kindly hi hello hey so ok okay well".split())
_BEGINS = (
    _QUESTION_WORDS
    | AUXILIARIES
    | {phrase[0] for phrase in _ASKING if phrase[0].isascii()}
    | set("explain describe list show give name compare summarize summarise define".split())
    | set("if whether in on at during after before according under".split())
)
# Set off from the question: "How do you say please?" is another one.
_THANKS = re.compile(r"[,.?!;。]\s*(?:please|pls|(?:many )?thanks|thank you|thx|谢谢[你您]?)[\s.?!。]*\Z")
_HELLO = re.compile(
    r"\A\s*(?:[你您]好[\s,.!。]+"
    rf"|(?:hi|hello|hey)(?: there)?[,.!]\s+(?=.*\b(?:{'|'.join(sorted(_QUESTION_WORDS))})\b))"
)
_PARTICLES = frozenset("吗呢呀啊")


def wording(question: str) -> str:
    """Return what the question says, equal for all that say the same; empty for one that says nothing.

    The words, then in a line of their own the auxiliaries, in their order but not where they stand. Linear in length.
    """
    said = _without_particle(_without_manners(_spelled_out(_words(_uniform(question)))))
    words = " ".join(word for word in said if word not in AUXILIARIES)
    auxiliaries = " ".join(word for word in said if word in AUXILIARIES)
    return f"{words}\n{auxiliaries}" if said else ""


def spelling(question: str) -> str:
    """Return the question in the one spelling, its manners included: what an embedder is asked about.

    Embedders see case and width. The built-in one puts a question and the same in capitals at a cosine of 0.3.
    """
    words = _words(_uniform(question))
    return "".join(word if _is_cjk(word, before) else f" {word}" for before, word in pairwise(["", *words])).strip()


def _is_cjk(word: str, before: str) -> bool:
    return bool(_CHARACTER.match(word) and _CHARACTER.match(before))


def _uniform(question: str) -> str:
    """Return one spelling of what differs in form alone: width, case, quotation marks, dashes, 1,000 and 1000.

    Thanks and greetings go here: only the punctuation tells them from words that are asked about.
    """
    marked = "".join(map(_marked, question)) if not question.isascii() else question
    text = unicodedata.normalize("NFKC", marked).casefold().translate(_UNIFORM)
    text = _HELLO.sub("", _THANKS.sub("", text, count=1), count=1)
    text = _CLAUSE_END.sub(" ", _NAME_DOT.sub("", _DASHES.sub("-", text)))
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
    found: list[str] = []
    for chunk in text.split():
        pieces = _PIECE.findall(chunk)
        for piece in pieces:
            word = _trimmed(piece, units)
            # A dash between two words is a stroke of the pen, one inside of what belongs together is not.
            if word and (word.strip("-") or len(pieces) > 1):
                found.append(word)
    return found


def _trimmed(piece: str, units: str) -> str:
    word = piece.lstrip(_OPENING)
    while word and word[-1] in _CLOSING:
        if word[-1] in f"!{units}" and word[-2:-1].isdigit():
            break  # 5! is not 5
        word = word[:-1]
    return word


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


def _without_manners(words: Sequence[str]) -> list[str]:
    left = list(words)
    while left:
        taken = next((len(phrase) for phrase in _ASKING if tuple(left[: len(phrase)]) == phrase), 0)
        if taken and len(left) > taken:
            del left[:taken]
            if left[0] in ("if", "whether") and _QUESTION_WORDS.isdisjoint(left):
                del left[0]  # "tell me whether it is open" asks "is it open?"
        elif left[0] in _GREETING and len(left) > 1 and (left[1] in _BEGINS or left[1] in _GREETING):
            del left[0]
        else:
            break
    return left


def _without_particle(words: list[str]) -> list[str]:
    if len(words) > 2 and words[-1] in _PARTICLES and words[-2] not in ("毛", "干"):
        return words[:-1]
    return words
