"""The tables of names: what dashboards and alerts may rely on."""

from __future__ import annotations

import re

import pytest

from ragagent import names

HISTOGRAMS = [row for row in names.METRICS if isinstance(row, names.Histogram)]
KEYS = {row.key for row in names.ATTRIBUTES}


@pytest.mark.parametrize(
    "column",
    [
        [row.name for row in names.SPANS],
        [row.key for row in names.ATTRIBUTES],
        [row.name for row in names.METRICS],
    ],
    ids=["spans", "attributes", "metrics"],
)
def test_names_are_unique(column: list[str]) -> None:
    assert len(column) == len(set(column)) > 0


def test_no_two_metrics_share_a_prometheus_name() -> None:
    # Prometheus knows only underscores: a.b_c and a.b.c would become one.
    exported = [re.sub(r"\W", "_", row.name) for row in names.METRICS]
    assert len(exported) == len(set(exported))


@pytest.mark.parametrize("row", [*names.SPANS, *names.ATTRIBUTES, *names.METRICS], ids=str)
def test_every_row_says_what_it_is(row: names.Span | names.Attribute | names.Metric) -> None:
    assert re.fullmatch(r"[A-Z0-9].*\S", row.about)


@pytest.mark.parametrize("key", [*KEYS, *(row.name for row in names.METRICS)])
def test_keys_and_metrics_are_dotted_lower_case(key: str) -> None:
    assert re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)+", key)
    assert key == key.lower()


@pytest.mark.parametrize("row", names.METRICS, ids=lambda row: row.name)
def test_units_are_legal(row: names.Metric) -> None:
    # Seconds, bytes, or a counted thing in braces. Never "1": Prometheus would append _ratio to the name of a gauge.
    assert row.unit in ("s", "By") or re.fullmatch(r"\{[a-z]+\}", row.unit)


@pytest.mark.parametrize("row", names.METRICS, ids=lambda row: row.name)
def test_attributes_of_metrics_are_in_the_attribute_table(row: names.Metric) -> None:
    assert set(row.attributes) <= KEYS
    assert len(set(row.attributes)) == len(row.attributes)


@pytest.mark.parametrize("row", HISTOGRAMS, ids=lambda row: row.name)
def test_buckets_are_ascending_floats(row: names.Histogram) -> None:
    assert row.buckets
    assert all(type(bound) is float for bound in row.buckets)
    assert list(row.buckets) == sorted(set(row.buckets))


def test_requests_have_a_bucket_that_ends_at_the_promised_two_seconds() -> None:
    assert 2.0 in names.HTTP_DURATION.buckets


def test_no_metric_is_labelled_by_what_has_no_bound() -> None:
    # One series per value, kept for ever: 2,000 of them and the SDK folds the rest into one.
    unbounded = {names.URL_PATH, names.REQUEST_ID, names.JOB_ID, names.KEY_ID, names.CLIENT_ADDRESS, names.USER_AGENT}
    assert not [row.name for row in names.METRICS if unbounded & set(row.attributes)]
