"""List cursors against a list in plain Python."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragagent.store.pages import keyset
from ragagent.types import Page

Row = tuple[str, int, str]  # id, created_at, owner

# Clocks stand still and go back: many rows of one second, in any order.
rows = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=12).map(
    lambda drawn: [(f"id{n}", second, owner) for n, (second, owner) in enumerate(drawn)]
)
cursors = st.none() | st.integers(0, 13).map("id{}".format)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.row_factory = sqlite3.Row
        opened.execute("CREATE TABLE things (id TEXT PRIMARY KEY, created_at INTEGER, owner TEXT)")
        yield opened


def page_of(rows: list[Row], page: Page) -> list[str]:
    """The model: the rows of owner "a" in order, cut after and before, the nearest to the cursor kept."""
    mine = [(second, n, name) for n, (name, second, owner) in enumerate(rows) if owner == "a"]
    ids = [name for _, _, name in sorted(mine, reverse=page.order == "desc")]
    for cursor in filter(None, (page.after, page.before)):
        if cursor not in ids:
            return []
    first = ids.index(page.after) + 1 if page.after else 0
    last = ids.index(page.before) if page.before else len(ids)
    between = ids[first:last]
    return between[-page.limit :] if page.before and not page.after else between[: page.limit]


def listed(connection: sqlite3.Connection, rows: list[Row], page: Page) -> list[str]:
    connection.execute("DELETE FROM things")
    connection.executemany("INSERT INTO things VALUES (?, ?, ?)", rows)
    return [row["id"] for row in keyset(connection, "things", "owner = ?", ["a"], page)]


@given(rows, st.builds(Page, st.integers(1, 5), cursors, cursors, st.sampled_from(["asc", "desc"])))
def test_a_page_holds_what_the_model_says(connection: sqlite3.Connection, rows: list[Row], page: Page) -> None:
    assert listed(connection, rows, page) == page_of(rows, page)


@given(rows, st.integers(1, 4), st.sampled_from(["asc", "desc"]))
def test_walking_forwards_and_backwards_meets_every_row_once(
    connection: sqlite3.Connection, rows: list[Row], limit: int, order: str
) -> None:
    everything = page_of(rows, Page(100, order=order))  # type: ignore[arg-type]
    forwards: list[str] = []
    while found := listed(connection, rows, Page(limit, after=forwards[-1] if forwards else None, order=order)):  # type: ignore[arg-type]
        forwards += found
    assert forwards == everything
    backwards = everything[-1:]
    while backwards and (found := listed(connection, rows, Page(limit, before=backwards[0], order=order))):  # type: ignore[arg-type]
        backwards = found + backwards
    assert backwards == everything
