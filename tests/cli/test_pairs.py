from __future__ import annotations

import click
import pytest

from ragagent.cli.pairs import PAIR, filters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=v", "v"),
        ("k=a=b", "a=b"),
        ("k=", ""),
        ("k=2024", 2024),
        ("k=0.5", 0.5),
        ("k=true", True),
        ('k="2024"', "2024"),
        ("k=0123", "0123"),
        ("k=null", "null"),
        ("k=[1]", "[1]"),
        ("k=NaN", "NaN"),
        ("k=1e999", "1e999"),
        ("k=9007199254740993", "9007199254740993"),
        ("k=中文", "中文"),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    key, found = PAIR.convert(text, None, None)
    assert (key, found, type(found)) == ("k", value, type(value))


@pytest.mark.parametrize("text", ["", "k", "=v"])
def test_what_is_no_pair_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="KEY=VALUE"):
        PAIR.convert(text, None, None)


def test_filters_ask_for_all_pairs() -> None:
    leaf = {"type": "eq", "key": "year", "value": 2024}
    assert filters([]) is None
    assert filters([("year", 2024)]) == {"type": "and", "filters": [leaf]}
