"""The first look at a request: refuse what is ambiguous or oversized before any other code reads it.

Pure ASGI, outside everything. Three refusals, all of which end the connection:

    400   `Transfer-Encoding` together with `Content-Length`: request smuggling (RFC 9112 §6.1). Hypercorn 0.18 takes
          the second, smuggled request as one of its own (hypercorn#279), so the connection must close.
    431   more than 16 KiB of request line and headers. h11's own limit counts only what is still incomplete.
    501   CONNECT: after a 2xx to it h11 waits for ever, and does not even see that the client has left.

The llhttp lane refuses the first two while it reads, in the same words; what is here holds for every lane.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from itertools import chain
from typing import Any

MAX_HEAD_BYTES = 16 * 1024

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIELD_OVERHEAD = len(b": \r\n")


class Refusal(Exception):
    """A request that no application should see, and what to tell its client."""

    def __init__(self, status: int, code: str, message: str, *, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self._error = {"message": message, "type": kind, "param": None, "code": code}

    def answer(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return headers and body: OpenAI's error envelope."""
        body = json.dumps({"error": self._error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", b"req_" + uuid.uuid4().hex.encode()),
        ]
        return headers, body


def ambiguous_length() -> Refusal:
    message = "The request has both 'Transfer-Encoding' and 'Content-Length'; send only one of them."
    return Refusal(400, "ambiguous_length", message)


def headers_too_large() -> Refusal:
    message = f"The request line and headers are longer than the limit of {MAX_HEAD_BYTES} bytes."
    return Refusal(431, "headers_too_large", message)


class Guard:
    """Pass on what is sound; refuse the rest."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(refusal, scope, send)


def _refusal(scope: Scope) -> Refusal | None:
    if _is_ambiguous(scope["headers"]):
        return ambiguous_length()
    if scope["method"] == "CONNECT":
        return Refusal(501, "not_a_proxy", "CONNECT is for proxies, and this server is none.")
    return headers_too_large() if _head_bytes(scope) > MAX_HEAD_BYTES else None


def _is_ambiguous(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    names = {name for name, _ in headers}  # Lower case already: ASGI promises it.
    return b"transfer-encoding" in names and b"content-length" in names


def _head_bytes(scope: Scope) -> int:
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    fields = sum(map(len, chain.from_iterable(scope["headers"])))
    return target + fields + len(scope["headers"]) * _FIELD_OVERHEAD


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    headers, body = refusal.answer()
    if scope["http_version"].startswith("1"):  # A connection header is an error in HTTP/2.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
