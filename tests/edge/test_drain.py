"""The drain's middleware alone: which responses ask the client to close."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from ragagent.edge.drain import Drain
from ragagent.edge.guard import Receive, Scope, Send

pytestmark = pytest.mark.anyio


async def nothing() -> MutableMapping[str, Any]:
    return {}


def request(version: str, client: tuple[str, int] | None = ("127.0.0.1", 5)) -> Scope:
    return {"type": "http", "http_version": version, "headers": [], "client": client}


async def headers_of(drain: Drain, version: str) -> list[tuple[bytes, bytes]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await drain(request(version), nothing, send)
    return list(sent[0]["headers"])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"keep-alive")]})


async def test_asks_to_close_only_while_closing_and_only_http_1() -> None:
    drain = Drain(app)
    assert await headers_of(drain, "1.1") == [(b"Connection", b"keep-alive")]
    drain.closing = True
    assert await headers_of(drain, "1.1") == [(b"connection", b"close")]
    assert await headers_of(drain, "2") == [(b"Connection", b"keep-alive")]


async def test_request_that_fails_is_not_in_flight_any_more() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    drain = Drain(broken)
    with pytest.raises(RuntimeError):
        await drain(request("1.1"), nothing, lambda _: nothing())  # type: ignore[arg-type, return-value]
    assert (drain.in_flight, drain.requests) == (0, 1)


async def test_a_probe_is_in_flight_but_no_request() -> None:
    seen: list[int] = []

    async def looking(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(drain.in_flight)

    drain = Drain(looking)
    await drain(request("1.1", client=None), nothing, lambda _: nothing())  # type: ignore[arg-type, return-value]
    assert (seen, drain.in_flight, drain.requests) == ([1], 0, 0)
