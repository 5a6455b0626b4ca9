"""A bound on what a client may send, in bytes and in time.

The servers underneath bound neither: a body of any length is read, and one byte every few seconds holds a connection
for ever, because each byte starts their read timeout again. Both refusals are raised, not sent: this stands inside
`Problems`, which answers them wherever the application was in its reading. The server then closes the connection, on
which the rest of the body would still come.

    413  too_large        by Content-Length before anything is read, else at the first byte too many
    408  request_timeout  the client took too long; time that the application spends between reads is not counted
"""

from __future__ import annotations

from collections.abc import Iterable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragagent.errors import Invalid, TooLarge


class BodyLimit:
    """Pass on HTTP requests whose bodies hold `max_bytes` at most and take `seconds` at most to arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _content_length(scope["headers"]) > self._max_bytes:
            raise _too_large(self._max_bytes)
        body = _Body(receive, self._max_bytes, self._seconds)
        await self._app(scope, body.receive, send)


class _Body:
    """The body of one request on its way in."""

    def __init__(self, receive: Receive, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._bytes_left = max_bytes
        self._seconds_left = seconds
        self._is_complete = False
        self._refusal: Invalid | None = None

    async def receive(self) -> Message:
        """Return the next message. Raises TooLarge; raises Invalid with code "request_timeout"."""
        if self._is_complete:
            return await self._receive()  # What comes now is the client's leaving, and for that one waits.
        if self._refusal is not None:
            raise self._refusal  # A handler that swallowed it gets no more of the body all the same.
        message = await self._in_time()
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            raise self._refused(_too_large(self._max_bytes))
        self._is_complete = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        began = anyio.current_time()
        with anyio.move_on_after(self._seconds_left):
            message = await self._receive()
            self._seconds_left -= anyio.current_time() - began
            return message
        raise self._refused(
            Invalid(f"The request's body did not arrive within {self._seconds:g} seconds.", code="request_timeout")
        )

    def _refused(self, error: Invalid) -> Invalid:
        self._refusal = error
        return error


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {max_bytes} bytes, which is the limit (server.max_body_bytes).")


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return what the client declares, 0 when it declares nothing. Malformed values are the server's to refuse."""
    # Twenty digits are too large already; int() raises on more than 4,300 of them.
    return max((int(value[:20]) for key, value in headers if key == b"content-length" and value.isdigit()), default=0)
