"""Counters and histograms as plain numbers: the supervisor keeps the totals, so an exporter that dies loses none.

A *point* is one series of one metric at one moment, as JSON: `[metric, attributes, value]`. The value of a
histogram is `{"sum": seconds, "min": ..., "max": ..., "counts": [one per bucket, the last one without a bound]}`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from ragagent import names

Attributes = Mapping[str, str | int]
Point = tuple[str, Attributes, Any]
_Series = tuple[names.Metric, tuple[tuple[str, str | int], ...]]


@dataclass(slots=True)
class _Distribution:
    counts: list[int]
    sum: float = 0.0
    min: float = inf
    max: float = -inf


class Tally:
    """Only ever grows."""

    def __init__(self) -> None:
        self._counts: dict[_Series, int] = {}
        self._distributions: dict[_Series, _Distribution] = {}

    def count(self, row: names.Counter, attributes: Attributes, value: int = 1) -> None:
        series = _series(row, attributes)
        self._counts[series] = self._counts.get(series, 0) + value

    def record(self, row: names.Histogram, attributes: Attributes, value: float) -> None:
        empty = _Distribution([0] * (len(row.buckets) + 1))
        known = self._distributions.setdefault(_series(row, attributes), empty)
        known.counts[bisect_left(row.buckets, value)] += 1  # A bound belongs to the bucket below it.
        known.sum += value
        known.min, known.max = min(known.min, value), max(known.max, value)

    def points(self) -> Iterator[Point]:
        for (row, attributes), value in self._counts.items():
            yield row.name, dict(attributes), value
        for (row, attributes), known in self._distributions.items():
            yield row.name, dict(attributes), asdict(known)


def _series(row: names.Metric, attributes: Attributes) -> _Series:
    return row, tuple(sorted(attributes.items()))
