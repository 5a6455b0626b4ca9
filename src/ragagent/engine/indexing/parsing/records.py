"""JSON and JSON lines, flattened: each leaf becomes a line `path: value`, each record a paragraph.

Numbers are quoted as they are written: 1.10 stays 1.10, and 1e999 is no error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ragagent.engine.indexing.parsing import plain
from ragagent.engine.indexing.parsing.parsed import Source, Unparsable

_MAX_DEPTH = 100


def document(data: bytes) -> Source:
    text = plain.decode(data)
    try:
        value = _load(text)
    except ValueError as exc:
        raise Unparsable("invalid_file", f"This file is not valid JSON: {exc}.") from exc
    return Source(None, _paragraphs(value))


def lines(data: bytes) -> Source:
    return Source(None, _records(plain.decode(data)))


def _records(text: str) -> Iterator[str]:
    # Not splitlines: U+2028 and its kind may stand unescaped inside a JSON string.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = _load(line)
        except ValueError as exc:
            raise Unparsable("invalid_file", f"Line {number} of this file is not valid JSON: {exc}.") from exc
        yield from _record(value)


def _load(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def _paragraphs(value: Any) -> Iterator[str]:
    for record in value if isinstance(value, list) else (value,):
        yield from _record(record)


def _record(value: Any) -> Iterator[str]:
    """Yield the lines of one record, and the blank line that ends it."""
    for path, leaf in _leaves(value, "", 0):
        yield f"{path}: {leaf}\n" if path else f"{leaf}\n"
    yield "\n"


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield `(path, value)` of what can be read: null and empty containers say nothing."""
    if depth > _MAX_DEPTH:
        raise Unparsable("invalid_file", f"This JSON is nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]", depth + 1)
    elif isinstance(value, bool):
        yield path, "true" if value else "false"
    elif value is not None and value.strip():
        yield path, value
