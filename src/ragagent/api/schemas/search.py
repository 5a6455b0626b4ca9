"""What to look for: filters, ranking, and the search over one store."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import AttributeKey, Scalar, Text
from ragagent.errors import Invalid
from ragagent.types import AttributeValue, Comparison, Compound, Filter

MAX_FILTER_LEAVES = 100
MAX_FILTER_DEPTH = 8
MAX_FILTER_VALUES = 10_000  # SQLite takes 32,766 parameters in a statement


class ComparisonFilter(Schema):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: AttributeKey
    value: Scalar | Annotated[list[Scalar], Field(max_length=1000, fail_fast=True)]

    @model_validator(mode="after")
    def _value_fits(self) -> ComparisonFilter:
        if isinstance(self.value, list) != (self.type in ("in", "nin")):
            wanted = "a list" if self.type in ("in", "nin") else "a single value"
            raise ValueError(f"'{self.type}' takes {wanted} as its value")
        if self.type in ("gt", "gte", "lt", "lte") and isinstance(self.value, bool):
            raise ValueError(f"'{self.type}' takes a number or a string as its value")
        return self

    def tree(self) -> Filter:
        value: AttributeValue | tuple[AttributeValue, ...]
        value = tuple(self.value) if isinstance(self.value, list) else self.value
        return Comparison(self.type, self.key, value)


class CompoundFilter(Schema):
    type: Literal["and", "or"]
    filters: Annotated[list[AnyFilter], Field(min_length=1, max_length=MAX_FILTER_LEAVES, fail_fast=True)]

    def tree(self) -> Filter:
        return Compound(self.type, tuple(part.tree() for part in self.filters))


def _filter_kind(given: Any) -> str:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return "compound" if kind in ("and", "or") else "comparison"


AnyFilter = Annotated[
    Annotated[ComparisonFilter, Tag("comparison")] | Annotated[CompoundFilter, Tag("compound")],
    Discriminator(_filter_kind),
]


def filter_tree(filters: ComparisonFilter | CompoundFilter | None) -> Filter | None:
    if filters is None:
        return None
    tree = filters.tree()
    leaves, values, depth = _size(tree)
    if leaves > MAX_FILTER_LEAVES or values > MAX_FILTER_VALUES or depth > MAX_FILTER_DEPTH:
        raise Invalid(
            f"The filter has {leaves} comparisons with {values} values, {depth} deep; at most {MAX_FILTER_LEAVES}, "
            f"{MAX_FILTER_VALUES} and {MAX_FILTER_DEPTH} are allowed.",
            param="filters",
        )
    return tree


def _size(tree: Filter) -> tuple[int, int, int]:
    """Return how many comparisons there are, with how many values, and how deep they stand."""
    if isinstance(tree, Comparison):
        return 1, len(tree.value) if isinstance(tree.value, tuple) else 1, 1
    leaves, values, depths = zip(*map(_size, tree.filters), strict=True)
    return sum(leaves), sum(values), 1 + max(depths)


class HybridSearch(Schema):
    embedding_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    text_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1

    @model_validator(mode="after")
    def _one_counts(self) -> HybridSearch:
        if self.embedding_weight + self.text_weight == 0:
            raise ValueError("at least one of the weights must be above zero")
        return self

    @property
    def dense_weight(self) -> float:
        return self.embedding_weight / (self.embedding_weight + self.text_weight)


class RankingOptions(Schema):
    ranker: str | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    hybrid_search: HybridSearch | None = None
    fusion: Literal["convex", "rrf"] | None = None  # ours

    @property
    def dense_weight(self) -> float | None:
        return self.hybrid_search.dense_weight if self.hybrid_search else None


class Search(Schema):
    query: Text | Annotated[list[Text], Field(min_length=1, max_length=16, fail_fast=True)]
    filters: AnyFilter | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: bool = False
