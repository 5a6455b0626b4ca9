"""Fusion: two ranked legs become one list. Pure functions.

Measured on XQuAD, hit@1: each leg divided by its own best score, then summed with 0.2 on the dense one, gives 0.944 in
English and 0.932 in Chinese, where the lexical leg alone gives 0.931 and 0.931. Min-max scaling loses on Chinese
(0.924), reciprocal ranks on both: they forget how far apart the scores were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ragagent.errors import Invalid
from ragagent.types import Hit

Leg = Sequence[tuple[int, float]]

_RRF_CONSTANT = 60  # Cormack et al., 2009


def fuse(
    dense: Leg,
    lexical: Leg,
    *,
    method: Literal["convex", "rrf"] = "convex",
    dense_weight: float = 0.2,
    limit: int,
) -> list[Hit]:
    """Return up to `limit` hits, best first, equal scores by chunk id.

    Scores lie in 0..1, and 1 is a chunk that both legs put first. Only positive scores of a leg count: a leg without
    any adds nothing, and a chunk that no leg counts is no hit. Raises Invalid for a weight outside 0..1.
    """
    if not 0.0 <= dense_weight <= 1.0:
        raise Invalid(f"The dense weight is {dense_weight:g}; it must lie in 0..1.", param="dense_weight")
    of_dense, of_lexical = dict(dense), dict(lexical)
    scale = _by_rank if method == "rrf" else _by_best
    scores: dict[int, float] = {}
    for weight, leg in ((dense_weight, of_dense), (1.0 - dense_weight, of_lexical)):
        for chunk_id, score in scale(leg).items():
            scores[chunk_id] = scores.get(chunk_id, 0.0) + weight * score
    ranked = sorted((-score, chunk_id) for chunk_id, score in scores.items() if score > 0.0)
    return [
        # Rounding may carry the sum of two full shares past one.
        Hit(chunk_id, min(-negative, 1.0), of_dense.get(chunk_id), of_lexical.get(chunk_id))
        for negative, chunk_id in ranked[: max(limit, 0)]
    ]


def _by_best(leg: Mapping[int, float]) -> dict[int, float]:
    best = max(leg.values(), default=0.0)
    return {chunk_id: score / best for chunk_id, score in leg.items() if score > 0.0}


def _by_rank(leg: Mapping[int, float]) -> dict[int, float]:
    ranked = sorted((-score, chunk_id) for chunk_id, score in leg.items() if score > 0.0)
    return {
        chunk_id: (_RRF_CONSTANT + 1) / (_RRF_CONSTANT + rank) for rank, (_, chunk_id) in enumerate(ranked, start=1)
    }
