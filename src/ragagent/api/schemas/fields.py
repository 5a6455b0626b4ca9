"""The types of single fields, each with its bound. A NUL is in none: SQLite ends a text there."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StrictStr

from ragagent.types import AttributeValue

MAX_PAIRS = 16
MAX_STRING = 512
MAX_WHOLE = 2**53  # Beyond it a number is another one for whoever reads JSON as JavaScript does.


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    return text


def _attribute_key(key: str) -> str:
    if '"' in key:  # It would end the quoted name in a JSON path.
        raise ValueError("must not hold a double quote")
    return _no_nul(key)


def _scalar(value: Any) -> AttributeValue:
    """Take what an attribute may be. One function, not a union: that would report why it is not each of four types."""
    if isinstance(value, str) and len(value) <= MAX_STRING:
        return _no_nul(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) <= MAX_WHOLE:  # or a boolean
        return value
    raise ValueError(
        f"must be a string of at most {MAX_STRING} characters, a number (a whole one within ±2^53), or a boolean"
    )


def _few(given: Any) -> Any:
    if not isinstance(given, dict):
        raise ValueError("must be an object")
    if len(given) > MAX_PAIRS:
        raise ValueError(f"must hold at most {MAX_PAIRS} pairs")
    return given


Text = Annotated[StrictStr, AfterValidator(_no_nul)]
Name = Annotated[Text, Field(min_length=1, max_length=256)]
ExternalId = Annotated[Text, Field(min_length=1, max_length=512)]
StoreNames = Annotated[list[Name], Field(max_length=100, fail_fast=True)]
AttributeKey = Annotated[StrictStr, Field(min_length=1, max_length=64), AfterValidator(_attribute_key)]
Scalar = Annotated[AttributeValue, PlainValidator(_scalar)]
AttributeMap = Annotated[dict[AttributeKey, Scalar], BeforeValidator(_few)]
Metadata = Annotated[
    dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=MAX_STRING)]], BeforeValidator(_few)
]
