"""CSV: each row can be read by itself."""

from __future__ import annotations

import pytest

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable


def _read(text: str, name: str = "a.csv") -> str:
    return parse(name, text.encode(), max_chars=1_000_000).text.strip()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_each_row_names_its_cells(delimiter: str) -> None:
    table = "name,city,born\nAda,London,1815\n王,杭州,\n".replace(",", delimiter)
    assert _read(table) == "name: Ada; city: London; born: 1815\n\nname: 王; city: 杭州"


def test_quoted_cells_stay_in_their_row() -> None:
    assert _read('name,note\nAda,"first, and\nlast"\n') == "name: Ada; note: first, and last"


def test_rows_longer_and_shorter_than_the_header_are_kept() -> None:
    assert _read("a,b\n1\n1,2,3\n\n,,\n") == "a: 1\n\na: 1; b: 2; 3"


def test_a_header_alone_is_text() -> None:
    assert _read("name,city\n") == "name; city"


def test_a_cell_may_be_long() -> None:
    cell = "x" * 500_000
    assert _read(f"a,b\n1,{cell}\n") == f"a: 1; b: {cell}"


def test_a_long_header_cannot_unfold_into_endless_text() -> None:
    with pytest.raises(Unparsable, match="more than 1,000,000 characters"):
        _read("h" * 10_000 + ",b\n" + "1,2\n" * 10_000)
