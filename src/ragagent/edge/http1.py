"""The llhttp lane: one HTTP/1.1 connection, read by llhttp (node's parser, through httptools).

llhttp cannot be paused from Python, and after the end of one message it would go on into the next. So it is never fed
beyond a point where a message may end: the next blank line, or the end of the content-length. What follows stays here,
unread, until the request before it is answered; that is all there is to pipelining.

Bounds, none of which the parser has:

    a head          16 KiB, also while it is incomplete; HEAD_SECONDS from its first byte
    between heads   the keep-alive time
    a body          what the application has not taken stops the reading at HIGH_WATER; so does what is pipelined
    an answer       what the client has not read stops the application, at asyncio's mark of 64 KiB
    the end         LINGER_SECONDS for a client that has been sent everything and does not close, STALL_SECONDS for one
                    that does not read it
"""

from __future__ import annotations

import asyncio

import httptools

from ragagent.edge.connections import Connections
from ragagent.edge.deadline import Deadline
from ragagent.edge.exchange import Exchange
from ragagent.edge.guard import MAX_HEAD_BYTES, Refusal, ambiguous_length, headers_too_large
from ragagent.edge.head import Headers, address, request_framing, request_scope, response_head
from ragagent.edge.lanes import Lanes

HEAD_SECONDS = 5.0
LINGER_SECONDS = 2.0
# Generous, because the kernel takes megabytes at a time, and reports nothing until a slow client has read a third.
STALL_SECONDS = 60.0
HIGH_WATER = 64 * 1024
BLANK_LINE = b"\r\n\r\n"


class Http1(asyncio.Protocol):
    """A connection (connections.py) for the server, a line (exchange.py) for its exchanges."""

    def __init__(self, lanes: Lanes, transport: asyncio.Transport, connections: Connections) -> None:
        self.loop = asyncio.get_running_loop()
        self._lanes = lanes
        self._transport = transport
        self._connections = connections
        family = transport.get_extra_info("socket").family
        self._client = address(family, transport.get_extra_info("peername"))
        self._server = address(family, transport.get_extra_info("sockname"))
        self._parser = httptools.HttpRequestParser(self)
        # What has come and is not fed to the parser yet.
        self._unread = b""
        # The head that is being read, and what the parser has said of it.
        self._head = b""
        self._target = b""
        self._headers: Headers = []
        self._is_head_complete = False
        self._is_message_complete = False
        self._keeps_alive = False
        # The request that is being read or answered, and how much of its body is to come; None where it is chunked.
        self._exchange: Exchange | None = None
        self._bytes_left: int | None = None
        self._idle_bytes = 0
        # Every exchange whose application still runs: it may go on after its answer.
        self._running: set[Exchange] = set()
        self.is_full = False
        self._drained = asyncio.Event()
        self._is_finishing = False
        self._is_leaving = False
        self._is_lost = False
        # For the client; while an application is at work there is none.
        self._deadline = Deadline(self._expire, lanes.idle_seconds)
        self._unsent = 0
        connections.add(self)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_leaving:
            return
        is_begun = bool(self._head or self._unread)
        self._unread = self._unread + data if self._unread else data
        self._read()
        if not is_begun:
            self._await_head()
        self.regulate()

    def _read(self) -> None:
        try:
            self._feed()
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as exc:
            self._refuse(_refusal(str(exc)))
        except httptools.HttpParserUpgrade:
            self._hand_over()

    def _feed(self) -> None:
        """Feed the parser until it has one whole request, or wants more."""
        data, start = self._unread, 0
        try:
            while start < len(data) and not (self._exchange and self._exchange.is_received):
                end = self._portion(data, start)
                if end == start:
                    return
                piece, start = data[start:end], end
                if self._exchange is None:
                    self._read_head(piece)
                else:
                    self._read_body(self._exchange, piece)
        finally:
            self._unread = data[start:]

    def _portion(self, data: bytes, start: int) -> int:
        """Return how far the parser may be fed so that no message ends before the end of it."""
        if self._exchange is not None and self._bytes_left is not None:
            return min(start + self._bytes_left, len(data))
        blank = data.find(BLANK_LINE, start)
        if blank >= 0:
            return blank + len(BLANK_LINE)
        # The last bytes may be the beginning of a blank line: they wait for the rest of it.
        return max(start, len(data) - next((n for n in (3, 2, 1) if data.endswith(BLANK_LINE[:n])), 0))

    def _read_head(self, piece: bytes) -> None:
        self._head += piece
        if len(self._head) > MAX_HEAD_BYTES:
            raise headers_too_large()
        self._parser.feed_data(piece)
        if self._is_head_complete:
            self._begin()

    def _begin(self) -> None:
        """Start the application on the request whose head is complete."""
        version = self._parser.get_http_version()
        framing = request_framing(version, self._headers)
        scope = request_scope(
            self._parser.get_method().decode(),
            self._target,
            version,
            self._headers,
            self._client,
            self._server,
            self._lanes.state,
        )
        closes = self._is_finishing or version == "1.0" or not self._keeps_alive
        exchange = Exchange(self, scope, closes=closes, expects_continue=framing.expects_continue)
        self._head, self._target, self._headers, self._is_head_complete = b"", b"", [], False
        self._exchange, self._bytes_left, self._idle_bytes = exchange, framing.body_bytes, 0
        self._deadline.clear()
        if self._is_message_complete:
            exchange.end()
        self._running.add(exchange)
        exchange.start(self._lanes.app)

    def _read_body(self, exchange: Exchange, piece: bytes) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= len(piece)
        self._idle_bytes += len(piece)
        self._parser.feed_data(piece)
        if self._is_message_complete:
            exchange.end()
        elif self._idle_bytes > MAX_HEAD_BYTES:  # Trailers and chunk extensions: llhttp keeps what it reads of them.
            raise headers_too_large()

    # --- What the parser says -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._is_message_complete = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is None:  # Else it is a trailer, and ASGI has no place for one.
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._is_head_complete:  # `GET /` of HTTP/0.9 ends without a blank line.
            raise ValueError("a head within a head")
        self._is_head_complete = True
        self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        if self._exchange is not None:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        self._is_message_complete = True

    # --- What an exchange asks ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drained(self) -> None:
        await self._drained.wait()

    def regulate(self) -> None:
        # Paused, not even the end of the connection is seen: so not before much is waiting.
        if self._is_lost:
            return
        backlog = self._exchange.backlog if self._exchange is not None else 0
        if len(self._unread) > HIGH_WATER or backlog > HIGH_WATER:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        if exchange.closes or self._is_finishing:
            self._leave(reading_on=bool(self._unread) or not exchange.is_received)
            return
        self._exchange = None
        self._read()
        self._await_head()
        self.regulate()

    def cut(self) -> None:
        self._transport.abort()

    def over(self, exchange: Exchange) -> None:
        self._running.discard(exchange)
        self._forget()

    # --- Time ---------------------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        if self._exchange is None and not self._is_leaving and not self._is_lost:
            is_begun = self._head or self._unread
            idle_seconds = self._lanes.idle_seconds
            self._deadline.set(min(idle_seconds, HEAD_SECONDS) if is_begun else idle_seconds)

    def _expire(self) -> None:
        if not self._is_leaving:
            self._leave(reading_on=False)
            return
        before = self._unsent
        self._await_end()
        if self._unsent >= before:
            self._transport.abort()

    def _await_end(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline.set(STALL_SECONDS if self._unsent else LINGER_SECONDS)

    # --- The end ------------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what will not become a request, or what has stopped to be one."""
        if self._exchange is not None:
            self._exchange.disconnect()
            if self._exchange.is_started:
                self._transport.abort()
                return
        headers, body = refusal.answer()
        self._transport.write(response_head(refusal.status, [*headers, (b"connection", b"close")]) + body)
        self._leave(reading_on=True)

    def _leave(self, *, reading_on: bool) -> None:
        """Close, once what was written is sent.

        With `reading_on` only our side of it, and what still comes is thrown away: to close a socket that has unread
        bytes resets the connection, and the client may lose the answer that it has not read yet (RFC 9112 §9.6).
        """
        self._is_leaving = True
        self._unread = b""
        self._await_end()
        if reading_on and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _hand_over(self) -> None:
        """Give the connection to Hypercorn, which knows what else it may become, from the start of this request on."""
        self._is_lost = True
        self._deadline.close()
        self._lanes.hypercorn.take(self._transport, self._head + self._unread, self._connections)
        del self._parser
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._deadline.close()
        if self._exchange is not None:
            self._exchange.disconnect()
        self.resume_writing()
        # Both know this object: without them it is freed at once, and not by the garbage collector some time.
        self._exchange = None
        del self._parser
        self._forget()

    def _forget(self) -> None:
        if self._is_lost and not self._running:
            self._connections.discard(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self._drained.clear()

    def resume_writing(self) -> None:
        self.is_full = False
        self._drained.set()

    def dismiss(self, *, busy_too: bool) -> bool:
        return False  # `Connection: close` says it, in the next answer.

    async def finish(self) -> None:
        self._is_finishing = True
        if self._exchange is None and not self._is_leaving and not self._is_lost:
            self._leave(reading_on=False)

    def abort(self) -> None:
        self._transport.abort()
        for exchange in self._running:
            exchange.cancel()


def _refusal(reason: str) -> Refusal:
    """Return the answer to what llhttp does not take, in its own words but for the one case that has a name."""
    if "be present with" in reason:
        return ambiguous_length()
    return Refusal(400, "malformed_request", f"The request could not be read: {reason}.")
