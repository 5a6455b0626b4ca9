"""Whether two answers to one question agree: would who got the one call the other wrong?

Models word an answer anew each time, so equal text is not asked for. What nobody would accept is another outcome
(answered, refused), other sources, other numbers, or a yes for a no.
"""

from __future__ import annotations

import re

from ragagent.text import normalize, tokens
from ragagent.types import Answer

_MARKER = re.compile(r"\[\d+\]")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_YES = re.compile(r"\s*(?:yes\b|是的|对[,，。]|有[,，。])")
_NO = re.compile(r"\s*(?:no\b|not\b|不是|不(?!仅|但|过|同)|否|没有)")


def agree(one: Answer, other: Answer) -> bool:
    if one.evidence_state != other.evidence_state:
        return False
    ours, theirs = _text(one), _text(other)
    if one.evidence_state == "none" or tokens(ours) == tokens(theirs):
        return True
    return _overlap(_sources(one), _sources(other)) and _contained(ours, theirs) and not _is_reversed(ours, theirs)


def _text(answer: Answer) -> str:
    return _MARKER.sub("", normalize(answer.text))


def _sources(answer: Answer) -> set[int]:
    return {citation.chunk_id for citation in answer.citations}


def _overlap(ours: set[int], theirs: set[int]) -> bool:
    return not ours or not theirs or not ours.isdisjoint(theirs)


def _contained(ours: str, theirs: str) -> bool:
    """Return whether the numbers of one stand in the other: one may say more, none may say something else."""
    one, other = set(_NUMBER.findall(ours)), set(_NUMBER.findall(theirs))
    return one <= other or other <= one


def _is_reversed(ours: str, theirs: str) -> bool:
    return any(yes.match(ours) and no.match(theirs) for yes, no in ((_YES, _NO), (_NO, _YES)))
