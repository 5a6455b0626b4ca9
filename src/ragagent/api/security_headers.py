"""Response headers that tell a browser to expect data, and nothing that it should run, frame, guess at or keep.

A response that sets one of them itself keeps its own: the console needs a wider policy than an API does.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Answers hold what one key may read; no shared cache may hand them to the holder of another.
    (b"cache-control", b"no-store"),
)


class SecurityHeaders:
    """Add HEADERS to every HTTP response, streamed ones and errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _completed(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, secured)


def _completed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {key for key, _ in headers}  # Lower case already: ASGI promises it.
    return [*headers, *(header for header in HEADERS if header[0] not in present)]
