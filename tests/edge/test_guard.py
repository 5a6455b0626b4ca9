"""What the guard refuses, on the wire: the answer, its envelope, and that the connection is over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge.conftest import Serve, Site

pytestmark = pytest.mark.anyio

SMUGGLE = (
    b"POST /outer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
)


def envelope(response: bytes) -> dict[str, str | None]:
    error: dict[str, str | None] = json.loads(response.partition(b"\r\n\r\n")[2])["error"]
    return error


async def test_smuggled_request_is_never_executed(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        response = await running.exchange(SMUGGLE)
        assert response.startswith(b"HTTP/1.1 400")
        assert response.count(b"HTTP/1.1") == 1
        assert b"connection: close" in response.lower()
        assert site.paths == []
        assert envelope(response)["code"] == "ambiguous_length"


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 1000) for n in range(60)),
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["headers", "target"],
)
async def test_oversized_head_is_refused(serve: Serve, site: Site, request_head: bytes) -> None:
    async with serve(site) as running:
        response = await running.exchange(request_head + b"\r\n")
        assert response.startswith(b"HTTP/1.1 431")
        assert site.paths == []


async def test_refusal_is_openais_envelope_with_an_id(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        response = await running.exchange(SMUGGLE)
        assert set(envelope(response)) == {"message", "type", "param", "code"}
        assert envelope(response)["type"] == "invalid_request_error"
        assert b"x-request-id: req_" in response


async def test_large_head_within_the_limit_passes(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.0) as running:
        response = await running.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nx-big: " + b"a" * 15_000 + b"\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 200")
