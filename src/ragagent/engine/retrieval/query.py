"""A question as the search gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ragagent.types import Filter, VectorStore


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, where, and how. `None` settings mean the configured ones."""

    text: str
    stores: tuple[VectorStore, ...]
    limit: int
    filter: Filter | None = None
    fusion: Literal["convex", "rrf"] | None = None
    dense_weight: float | None = None
    score_threshold: float = 0.0
