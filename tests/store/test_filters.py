"""Filters against a model in plain Python: which documents does a tree let through?"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragagent.store import filters
from ragagent.types import Attributes, AttributeValue, Comparison, Compound, Filter

ORDER = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def kind(value: AttributeValue) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def lets_through(tree: Filter, attributes: Attributes) -> bool:
    """The model."""
    if isinstance(tree, Compound):
        return {"and": all, "or": any}[tree.op](lets_through(part, attributes) for part in tree.filters)
    values = tree.value if isinstance(tree.value, tuple) else (tree.value,)
    found: Any = attributes.get(tree.key)
    alike: list[Any] = [value for value in values if found is not None and kind(value) is kind(found)]
    if tree.op in ORDER:
        return any(ORDER[tree.op](found, value) for value in alike)
    return (found in alike) == (tree.op in ("eq", "in"))


names = st.sampled_from(["a", "b", "a.b", "a\\b", "[0]", "é 中", "a'b"]) | st.text(
    st.characters(exclude_characters='"', exclude_categories=["Cs"]), min_size=1, max_size=4
)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.sampled_from([0, 1, 2, -1, 0.0, 1.0, 0.5, True, False, "", "0", "1", "true", "a", "中"]) | words | numbers
order = st.builds(Comparison, st.sampled_from(["gt", "gte", "lt", "lte"]), names, scalars)
equal = st.builds(Comparison, st.sampled_from(["eq", "ne"]), names, scalars)
several = st.builds(Comparison, st.sampled_from(["in", "nin"]), names, st.lists(scalars, max_size=4).map(tuple))
trees = st.recursive(
    order | equal | several,
    lambda inner: st.builds(
        Compound, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        yield opened


def selected(connection: sqlite3.Connection, tree: Filter, rows: list[Attributes]) -> list[int]:
    """Return the positions of the rows that the tree's SQL selects."""
    sql, parameters = filters.clause(tree)
    documents = " UNION ALL ".join("SELECT ? AS id, ? AS attributes" for _ in rows)
    written = [part for n, row in enumerate(rows) for part in (n, json.dumps(dict(row), ensure_ascii=False))]
    found = connection.execute(f"SELECT id FROM ({documents}) WHERE ({sql}) ORDER BY id", (*written, *parameters))
    return [row[0] for row in found]


@given(trees, st.lists(st.dictionaries(names, scalars, max_size=4), min_size=1, max_size=5))
@example(Comparison("eq", "a", 1), [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {}])
@example(Comparison("ne", "a", True), [{"a": 1}, {"a": True}, {"a": False}, {}])
@example(Comparison("gte", "a", False), [{"a": 1}, {"a": True}, {"a": False}, {"a": "x"}])
@example(Comparison("nin", "a", ()), [{"a": 1}, {}])
@example(Comparison("eq", "a\\b", 1), [{"a\\b": 1}, {"a\b": 1}])
def test_sql_and_model_let_the_same_documents_through(
    connection: sqlite3.Connection, tree: Filter, rows: list[Attributes]
) -> None:
    expected = [n for n, row in enumerate(rows) if lets_through(tree, row)]
    assert selected(connection, tree, rows) == expected


def test_a_long_list_of_values_is_no_deeper_than_a_short_one(connection: sqlite3.Connection) -> None:
    values = tuple(range(5000))
    assert selected(connection, Comparison("in", "a", values), [{"a": 4999}, {"a": 5000}]) == [0]
    assert selected(connection, Comparison("nin", "a", values), [{"a": 4999}, {"a": 5000}]) == [1]


def test_keys_are_found_in_every_leaf() -> None:
    tree = Compound("and", (Comparison("eq", "a", 1), Compound("or", (Comparison("in", "b", ("x",)),))))
    assert list(filters.keys(tree)) == ["a", "b"]
