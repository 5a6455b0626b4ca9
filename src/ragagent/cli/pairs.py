"""KEY=VALUE arguments: attributes of files, and the filters that look for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ragagent.types import AttributeValue

EXACT = 2**53  # beyond it JSON numbers are rounded: such digits are an id, not an amount

Pair = tuple[str, AttributeValue]


class PairType(click.ParamType[Pair]):
    """KEY=VALUE. `true`, `false` and numbers are what they look like; everything else, and what is quoted, is text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Pair:
        if isinstance(value, tuple):
            return value
        key, sign, text = value.partition("=")
        if not key or not sign:
            self.fail(f"'{value}' is not of the form KEY=VALUE.", param, ctx)
        return key, _scalar(text)


PAIR = PairType()


def filters(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Return OpenAI's filter for "all of these are equal", or None for no pairs."""
    leaves = [{"type": "eq", "key": key, "value": value} for key, value in pairs]
    return {"type": "and", "filters": leaves} if leaves else None


def _scalar(text: str) -> AttributeValue:
    try:
        found = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    if isinstance(found, str) or (isinstance(found, int | float) and abs(found) <= EXACT):
        return found
    return text
