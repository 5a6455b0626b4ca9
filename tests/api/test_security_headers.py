"""Every kind of answer carries the headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ragagent.api.security_headers import HEADERS, SecurityHeaders

pytestmark = pytest.mark.anyio

EXPECTED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def console(request: Request) -> Response:
    return PlainTextResponse(
        "console", headers={"content-security-policy": "default-src 'self'", "Cache-Control": "max-age=60"}
    )


async def fail(request: Request) -> Response:
    raise LookupError


ROUTES = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in (plain, stream, console, fail)]


async def ask(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(SecurityHeaders(Starlette(routes=ROUTES)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path)


@pytest.mark.parametrize(("path", "status"), [("/plain", 200), ("/stream", 200), ("/nowhere", 404), ("/fail", 500)])
async def test_every_answer_carries_the_headers(path: str, status: int) -> None:
    response = await ask(path)
    assert response.status_code == status
    assert EXPECTED.items() <= dict(response.headers).items()


async def test_a_stream_still_streams_whole() -> None:
    assert (await ask("/stream")).text == "ab"


async def test_a_response_keeps_what_it_set_itself_and_gets_the_rest() -> None:
    response = await ask("/console")
    assert response.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert response.headers.get_list("cache-control") == ["max-age=60"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_no_header_comes_twice() -> None:
    response = await ask("/plain")
    assert all(len(response.headers.get_list(key.decode())) == 1 for key, _ in HEADERS)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    passed: list[tuple[Any, ...]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await SecurityHeaders(app)({"type": kind}, receive, send)
    assert passed == [({"type": kind}, receive, send)]
