"""JSON: each leaf with its path, each record a paragraph."""

from __future__ import annotations

import json

import pytest

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable


def _read(text: str, name: str = "a.json") -> str:
    return parse(name, text.encode(), max_chars=100_000).text.strip()


def test_an_object_is_flattened() -> None:
    source = '{"name": "Ada", "born": {"year": 1815, "city": "伦敦"}, "tags": ["math", null, {"x": true}], "none": {}}'
    assert _read(source) == "name: Ada\nborn.year: 1815\nborn.city: 伦敦\ntags[0]: math\ntags[2].x: true"


def test_an_array_of_objects_is_a_paragraph_each() -> None:
    assert _read('[{"a": 1, "b": 2}, {"a": 3}]') == "a: 1\nb: 2\n\na: 3"


def test_numbers_are_quoted_as_they_are_written() -> None:
    assert (
        _read('{"a": 1.10, "b": 1e999, "c": %s, "d": NaN}' % ("9" * 5000))
        == f"a: 1.10\nb: 1e999\nc: {'9' * 5000}\nd: NaN"
    )


def test_json_lines_are_a_paragraph_each() -> None:
    assert _read('{"a": 1}\r\n\n"text\u2028more"\n', "a.jsonl") == "a: 1\n\ntext\u2028more"


def test_a_bad_line_is_named() -> None:
    with pytest.raises(Unparsable, match="Line 3 of this file is not valid JSON"):
        _read('{"a": 1}\n\n{"a": \n', "a.jsonl")


def test_bad_json_says_where() -> None:
    with pytest.raises(Unparsable, match=r"not valid JSON: .*line 1 column 7"):
        _read('{"a": }')


def test_lone_surrogates_do_not_survive() -> None:
    _read(r'{"a": "x\ud800y"}').encode()


@pytest.mark.parametrize("depth", [200, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(Unparsable, match="nested"):
        _read("[" * depth + "1" + "]" * depth)


def test_a_long_key_cannot_unfold_into_endless_text() -> None:
    with pytest.raises(Unparsable, match="more than 100,000 characters"):
        _read(json.dumps({"k" * 1000: list(range(5000))}))
