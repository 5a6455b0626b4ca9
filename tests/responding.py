"""Requests for responses, and their streams as the official client's types have them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.types import ASGIApp

PATH = "/v1/responses"
QUESTION = "When did the Øresund Bridge open?"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def asking(question: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "ragagent", "input": question, "ragagent": {"stores": ["facts"]}, **more}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def say(app: ASGIApp, body: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.post(PATH, json=body)


def client(app: Starlette) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key="any", http_client=http, max_retries=0)  # type: ignore[arg-type]  # It takes httpx's client as well as its successor's.


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """Return the stream's events, each of which must be one of the client's own types, numbered, under its name."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        EVENT.validate_python(found[-1], strict=True)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found
