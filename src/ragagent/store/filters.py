"""A filter tree as SQL over `documents.attributes`: plain, for a few rows; `attributes` finds the same among many.

Types never mix: "3" is not 3, and true is not 1 (SQLite would say it is, so each comparison names the JSON type). A
document without the key matches `ne` and `nin` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ragagent.types import AttributeValue, Comparison, Filter

ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
Clause = tuple[str, list[object]]


def clause(tree: Filter) -> Clause:
    """Return `(sql, parameters)` of a condition on a row of `documents`."""
    if isinstance(tree, Comparison):
        return _comparison(tree)
    parts = [clause(part) for part in tree.filters]
    joined = f" {tree.op.upper()} ".join(f"({sql})" for sql, _ in parts)
    return joined, [parameter for _, parameters in parts for parameter in parameters]


def keys(tree: Filter) -> Iterator[str]:
    if isinstance(tree, Comparison):
        yield tree.key
        return
    for part in tree.filters:
        yield from keys(part)


def _path(key: str) -> str:
    """Return the JSON path of an attribute. Keys with a double quote are refused where they come in."""
    # SQLite compares the name in a path with the name as the JSON writes it, escapes and all.
    return f"$.{json.dumps(key, ensure_ascii=False)}"


def _comparison(leaf: Comparison) -> Clause:
    values = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
    if leaf.op in ORDER:
        return _matches(leaf.key, _kind(values[0]), f"{ORDER[leaf.op]} ?", values[:1])
    sql, parameters = _is_any(leaf.key, values)
    return (sql, parameters) if leaf.op in ("eq", "in") else (f"NOT coalesce({sql}, FALSE)", parameters)


def _is_any(key: str, values: Sequence[AttributeValue]) -> Clause:
    """One list for each type: a chain of ORs would grow too deep for SQLite at a thousand values."""
    kinds: dict[str, list[AttributeValue]] = {}
    for value in values:
        kinds.setdefault(_kind(value), []).append(value)
    parts = [_matches(key, kind, f"IN ({', '.join('?' * len(of))})", of) for kind, of in kinds.items()]
    sql = " OR ".join(f"({part})" for part, _ in parts) or "FALSE"
    return sql, [parameter for _, part in parts for parameter in part]


def _matches(key: str, kind: str, test: str, values: Sequence[AttributeValue]) -> Clause:
    # json_extract gives true and false as 1 and 0; the type keeps them apart from numbers.
    return (
        f"json_type(attributes, ?) IN {kind} AND json_extract(attributes, ?) {test}",
        [_path(key), _path(key), *values],
    )


def _kind(value: AttributeValue) -> str:
    if isinstance(value, bool):
        return "('true', 'false')"
    return "('text')" if isinstance(value, str) else "('integer', 'real')"
