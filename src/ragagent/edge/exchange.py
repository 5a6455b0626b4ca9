"""One request and its answer, as the application meets them: ASGI's `receive` and `send` over HTTP/1.1.

It knows the messages and the framing of the answer; the connection (http1.py) knows bytes, time and order.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Protocol

from ragagent.edge.guard import App, Message, Refusal, Scope
from ragagent.edge.head import Headers, response_head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
WITHOUT_BODY = (204, 304)

logger = logging.getLogger("ragagent.edge")


class Line(Protocol):
    """What an exchange asks of its connection."""

    loop: asyncio.AbstractEventLoop
    is_full: bool  # The client has not read enough of what was written.

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until the client has read most of what was written, or is gone."""

    def regulate(self) -> None:
        """Read on unless much is waiting already."""

    def answered(self, exchange: Exchange) -> None:
        """Go on to the next request, or close."""

    def over(self, exchange: Exchange) -> None:
        """The application has returned."""

    def cut(self) -> None:
        """End the connection so that its client knows that something is missing."""


class Exchange:
    """`is_received`: the request is complete. `is_answered`: the response is. `closes`: the connection ends with it.

    `backlog` is how many bytes of the request's body the application has not taken.
    """

    def __init__(self, connection: Line, scope: Scope, *, closes: bool, expects_continue: bool) -> None:
        self.is_received = False
        self.is_started = False
        self.is_answered = False
        self.closes = closes
        self._connection = connection
        self._scope = scope
        self._expects_continue = expects_continue
        self._is_gone = False
        # The request's body, as far as it came and was not taken.
        self._body: list[bytes] = []
        self.backlog = 0
        self._is_taken = False
        self._news: asyncio.Event | None = None
        # The response.
        self._head = b""
        self._has_body = True
        self._bytes_left: int | None = None  # None: chunked or, for HTTP/1.0, until the connection closes.
        self._is_chunked = False

    def start(self, app: App) -> None:
        # An empty context: what calls this may be the end of another request, whose trace is not this one's.
        self._task = self._connection.loop.create_task(self._run(app), context=contextvars.Context())

    async def _run(self, app: App) -> None:
        try:
            await app(self._scope, self.receive, self.send)
            if not self.is_answered and not self._is_gone:
                logger.error("The application left without an answer to %s.", self._scope["path"])
        except Exception:
            logger.exception("The application failed on %s.", self._scope["path"])
        finally:
            self._fail()
            self._connection.over(self)

    # --- What the connection tells ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._body.append(data)
        self.backlog += len(data)
        self._tell()

    def end(self) -> None:
        self.is_received = True
        self._tell()

    def disconnect(self) -> None:
        """The client is gone: the application hears of it, and what it still sends goes nowhere."""
        self._is_gone = True
        self._tell()

    def cancel(self) -> None:
        self._task.cancel()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    # --- What the application calls -----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        if self._expects_continue:
            self._expects_continue = False
            if not self._body and not self.is_received and not self.is_started and not self._is_gone:
                self._connection.write(CONTINUE)
        while True:
            if self._is_gone or self.is_answered:
                return {"type": "http.disconnect"}
            if self._body or (self.is_received and not self._is_taken):
                return self._take()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()

    def _take(self) -> Message:
        body = b"".join(self._body)
        self._body.clear()
        self.backlog = 0
        self._is_taken = self.is_received
        self._connection.regulate()
        return {"type": "http.request", "body": body, "more_body": not self.is_received}

    async def send(self, message: Message) -> None:
        if self._connection.is_full:
            await self._connection.drained()
        if self._is_gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.is_started:
            self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.is_started and not self.is_answered:
            self._continue(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind!r} cannot be sent at this point of the response.")

    def _start(self, status: int, headers: Headers) -> None:
        """Decide the framing, and hold the head back for a moment: most bodies follow at once, in the same packet."""
        sent: Headers = []
        self._bytes_left = None
        for name, value in headers:
            match name.lower():
                case b"transfer-encoding":
                    continue  # The framing is ours.
                case b"content-length":
                    self._bytes_left = int(value)
                case b"connection":
                    self.closes = self.closes or b"close" in value.lower()
                    continue
            sent.append((name, value))
        self._has_body = self._scope["method"] != "HEAD" and status not in WITHOUT_BODY
        if self._has_body and self._bytes_left is None:
            self._is_chunked = self._scope["http_version"] == "1.1"
            self.closes = self.closes or not self._is_chunked
            if self._is_chunked:
                sent.append((b"transfer-encoding", b"chunked"))
        # An answer to half a request: nobody will read the other half.
        self.closes = self.closes or not self.is_received
        if self.closes:
            sent.append((b"connection", b"close"))
        self._head = response_head(status, sent)
        self.is_started = True
        self._connection.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        if self._head and not self._is_gone:
            self._connection.write(self._head)
        self._head = b""

    def _continue(self, body: bytes, more: bool) -> None:
        data = self._framed(body, more) if self._has_body else b""
        if self._head or data:
            self._connection.write(b"".join((self._head, data)) if self._head else data)
            self._head = b""
        if not more:
            self.is_answered = True
            self._tell()
            self._connection.answered(self)

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + LAST_CHUNK
        if self._bytes_left is not None:
            self._bytes_left -= len(body)
            if self._bytes_left < 0 or (self._bytes_left and not more):
                raise RuntimeError("The response's body does not have the length of its content-length.")
        return body

    def _fail(self) -> None:
        """Leave no client waiting, and let no half answer look like a whole one."""
        if self.is_answered or self._is_gone:
            return
        if self.is_started:
            self._connection.cut()
            return
        message = "The server could not answer this request."
        headers, body = Refusal(500, "internal_error", message, kind="server_error").answer()
        self.closes = True
        self._start(500, headers)
        self._continue(body, more=False)
