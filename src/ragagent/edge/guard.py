"""The first look at a request: refuse what is ambiguous or oversized before any other code reads it.

Pure ASGI, outside everything. Two refusals, both of which end the connection:

    400   `Transfer-Encoding` together with `Content-Length`: request smuggling (RFC 9112 §6.1). Hypercorn 0.18 takes
          the second, smuggled request as one of its own (hypercorn#279), so the connection must close.
    431   more than 16 KiB of request line and headers. h11's own limit counts only what is still incomplete.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

MAX_HEAD_BYTES = 16 * 1024

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIELD_OVERHEAD = len(b": \r\n")


class Guard:
    """Pass on what is sound; answer the rest in OpenAI's error envelope."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _is_ambiguous(scope["headers"]):
            message = "The request has both 'Transfer-Encoding' and 'Content-Length'; send only one of them."
            await _refuse(scope, send, 400, "ambiguous_length", message)
        elif (size := _head_bytes(scope)) > MAX_HEAD_BYTES:
            message = f"The request line and headers are {size} bytes long; the limit is {MAX_HEAD_BYTES}."
            await _refuse(scope, send, 431, "headers_too_large", message)
        else:
            await self._app(scope, receive, send)


def _is_ambiguous(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    names = {name for name, _ in headers}  # Lower case already: ASGI promises it.
    return b"transfer-encoding" in names and b"content-length" in names


def _head_bytes(scope: Scope) -> int:
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return target + sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in scope["headers"])


async def _refuse(scope: Scope, send: Send, status: int, code: str, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", b"req_" + uuid.uuid4().hex.encode()),
    ]
    if scope["http_version"].startswith("1"):  # A connection header is an error in HTTP/2.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
