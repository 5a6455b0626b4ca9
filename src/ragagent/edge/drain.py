"""The innermost ring of a graceful end: count what is in flight, and ask every client to leave after its answer.

While it drains, a server keeps its idle connections open and answers what still comes on them, with
`Connection: close`. Closing them at once would race with requests already on the wire: behind 30 ms of network about
one pooled connection in three then loses a request per reload.
"""

from __future__ import annotations

from ragagent.edge.guard import App, Message, Receive, Scope, Send


class Drain:
    """Pure ASGI. `closing` says whether responses ask the client to close; HTTP/1.x only, HTTP/2 has GOAWAY."""

    def __init__(self, app: App, *, closing: bool = False) -> None:
        self._app = app
        self.closing = closing
        self.in_flight = 0
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asks_to_close = scope["type"] == "http" and scope["http_version"].startswith("1")
        if scope.get("client") is not None:  # Else it is a probe, which nobody sent.
            self.requests += 1
        self.in_flight += 1
        try:
            await self._app(scope, receive, self._closing_send(send) if asks_to_close else send)
        finally:
            self.in_flight -= 1

    def _closing_send(self, send: Send) -> Send:
        async def closing_send(message: Message) -> None:
            # Decided when the response starts, not when the request came: it may have waited through the order.
            if self.closing and message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        return closing_send
