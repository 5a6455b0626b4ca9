"""The evidence gate: is there anything in the evidence that could answer the question?

Coverage is the share of the question's content tokens, weighted by their rarity, that stand in one of the best chunks.
At 0.42 for English, and half of it for Chinese, 95 % of XQuAD's questions are answered when their article is in the
store, and 86 % (English) or 83 % (Chinese) refused when it is not (`python bench/quality.py --answers`).
"""

from __future__ import annotations

import math
from collections.abc import Collection

from ragagent import text
from ragagent.engine.retrieval.retrieve import Retrieval

LOOK_AT = 5  # chunks
BACKGROUND = 200  # chunks that we pretend to have besides: in a store of one document every token is common
CJK_SHARE = 0.5  # one rephrased character breaks two bigrams, so covered questions cover half as much


def is_supported(question: str, retrieval: Retrieval, least: float, cosine: float) -> bool:
    """Return whether to answer at all. `cosine` above zero lets a dense score that high pass whatever the words."""
    if not retrieval.evidence:
        return False
    if cosine and any((item.dense or 0.0) >= cosine for item in retrieval.evidence):
        return True
    share = CJK_SHARE if text.language(question) == "zh" else 1.0
    return coverage(question, retrieval) >= least * share


def coverage(question: str, retrieval: Retrieval) -> float:
    """Return the best chunk's coverage of the question, 0..1."""
    wanted = text.content_tokens(question) or set(text.tokens(question))
    weights = {token: _rarity(retrieval.found.frequencies.get(token, 0), retrieval.found.chunks) for token in wanted}
    total = sum(weights.values())
    if not total:
        return 0.0
    return max(_weight(weights, set(text.tokens(item.text))) for item in retrieval.evidence[:LOOK_AT]) / total


def _weight(weights: dict[str, float], present: Collection[str]) -> float:
    return sum(weight for token, weight in weights.items() if token in present)


def _rarity(frequency: int, chunks: int) -> float:
    """Return BM25's inverse document frequency over the chunks and the background."""
    frequency = min(frequency, chunks)  # Replaced chunks count until the index forgets them: more than there are.
    return math.log(1 + (chunks + BACKGROUND - frequency - 0.5) / (frequency + 1.5))
