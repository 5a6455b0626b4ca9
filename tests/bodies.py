"""Bodies of requests, read as the routes read them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from ragagent.api.schemas import body
from ragagent.api.schemas.body import M, Schema
from ragagent.errors import Invalid


def read(schema: type[M], raw: bytes, **options: bool) -> M:
    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    return asyncio.run(body.read(request, schema, **options))


def said(schema: type[M], given: Any) -> M:
    return read(schema, json.dumps(given).encode())


def refusal(schema: type[Schema], given: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        said(schema, given)
    return refused.value
