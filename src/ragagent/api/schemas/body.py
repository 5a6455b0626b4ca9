"""JSON to types: how a request's body is read, and what is said of one that cannot be.

Unknown fields are ignored, and a null is an absent field, as OpenAI's API has it. Everything that a client may repeat
has a bound that is checked before its parts are: pydantic collects errors, and a million of them stop the event loop.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from ragagent.errors import Invalid


class Schema(BaseModel):
    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Drop the nulls of fields that have a default; a field that must be given says itself if it may be null."""
        if not isinstance(given, dict):
            raise ValueError("must be an object")
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in given.items() if value is not None or key in required}


M = TypeVar("M", bound=Schema)


async def read(request: Request, schema: type[M], *, optional: bool = False) -> M:
    """Return the request's JSON body. Raises Invalid that names the field and the value."""
    raw = await request.body()
    if not raw.strip():
        if optional:
            return schema()
        raise Invalid("The request has no body; send a JSON object.", code="invalid_json")
    try:
        return schema.model_validate_json(raw)
    except ValidationError as exc:
        raise invalid(exc, raw) from exc


def invalid(exc: ValidationError, raw: bytes) -> Invalid:
    """Return the error as users know it: the path of the field in their own JSON, what it should be, what it is."""
    errors = exc.errors(include_url=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return Invalid(
            f"The body is not valid JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}.", code="invalid_json"
        )
    path, error = _most_telling(errors, from_json(raw))
    name = ".".join(path)
    if error["type"] == "missing":
        return Invalid(f"'{name}' is missing.", param=name, code="missing_required_parameter")
    message = error["msg"].removeprefix("Value error, ")
    where = f"'{name}'" if path else "The body"
    return Invalid(f"{where}: {message[:1].lower()}{message[1:]} (got {_shown(error['input'])}).", param=name or None)


def _most_telling(errors: Sequence[ErrorDetails], given: Any) -> tuple[list[str], ErrorDetails]:
    """Return the first field with an error, and of its errors the one of the branch that the client meant.

    A union reports every branch: the one that came furthest is meant, or else one that found the type right.
    """
    found = [(_path(error, given), error) for error in errors]
    first, _ = found[0]
    same_field = [(path, error) for path, error in found if path[: len(first)] == first]
    return max(same_field, key=lambda item: (len(item[0]), not item[1]["type"].endswith("_type")))


def _path(error: ErrorDetails, given: Any) -> list[str]:
    """Return the parts of pydantic's location that the request has too: the others name branches of unions."""
    path: list[str] = []
    for part in error["loc"]:
        try:
            given = given[part]
        except (LookupError, TypeError):  # a branch's name
            continue
        path.append(str(part))
    return [*path, str(error["loc"][-1])] if error["type"] == "missing" else path


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def _shown(value: Any) -> str:
    return _short.repr(value)
