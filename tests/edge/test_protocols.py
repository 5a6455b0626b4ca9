"""HTTP/2 by prior knowledge on the same port: our mends of Hypercorn's protocol, spoken to with h2 itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

if TYPE_CHECKING:
    from edge.conftest import Running, Serve, Site

pytestmark = pytest.mark.anyio


class Client:
    """One HTTP/2 connection that shows frames rather than hiding them: `goaways` are kept from h2, which would stop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.goaways: list[GoAwayFrame] = []
        self.statuses: dict[int, str] = {}
        self.ended: set[int] = set()
        self._unread = b""

    @classmethod
    async def connect(cls, running: Running) -> Client:
        client = cls(*await running.open())
        client.h2.initiate_connection()
        client.flush()
        await client.until(lambda: SettingCodes.MAX_CONCURRENT_STREAMS in client.h2.remote_settings)
        return client

    def request(self, path: str, *, body: bool = False) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST" if body else "GET"), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.h2.send_headers(stream, headers, end_stream=not body)
        self.flush()
        return stream

    def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())

    async def until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(10):
            while not condition():
                data = await self._reader.read(65_536)
                assert data, "the server closed the connection"
                self._take(data)

    async def closed(self) -> None:
        async with asyncio.timeout(10):
            while data := await self._reader.read(65_536):
                self._take(data)

    def _take(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= 9:
            length = 9 + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < length:
                return
            frame, self._unread = self._unread[:length], self._unread[length:]
            if frame[3] == GoAwayFrame.type:
                goaway, _ = GoAwayFrame.parse_frame_header(memoryview(frame[:9]))
                goaway.parse_body(memoryview(frame[9:]))
                assert isinstance(goaway, GoAwayFrame)
                self.goaways.append(goaway)
                continue
            for event in self.h2.receive_data(frame):
                if isinstance(event, h2.events.ResponseReceived):
                    assert event.stream_id is not None
                    self.statuses[event.stream_id] = dict(event.headers or [])[b":status"].decode()
                elif isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    self.ended.add(event.stream_id)
            self.flush()


async def test_early_answer_harms_no_other_stream(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        client = await Client.connect(running)
        innocent = client.request("/wait")
        upload = client.request("/early", body=True)
        client.h2.send_data(upload, b"x" * 1000)
        client.flush()
        await client.until(lambda: upload in client.ended)
        for _ in range(5):  # The client has not noticed yet, and goes on sending.
            client.h2.send_data(upload, b"x" * 1000)
            client.flush()
            await asyncio.sleep(0.01)
        site.release.set()
        await client.until(lambda: innocent in client.ended)
        assert client.statuses == {innocent: "200", upload: "413"}


async def test_connection_lives_beyond_a_thousand_streams(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        client = await Client.connect(running)
        for _ in range(1_010):
            stream = client.request("/")
            await client.until(lambda stream=stream: stream in client.ended)
        assert set(client.statuses.values()) == {"200"}
        assert client.goaways == []


async def test_drain_sends_goaway_and_answers_the_racing_stream(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=1.0) as running:
        client = await Client.connect(running)
        first = client.request("/")
        await client.until(lambda: first in client.ended)
        draining = asyncio.create_task(running.server.drain())
        await client.until(lambda: client.goaways)
        racing = client.request("/")  # Sent before the client could know.
        await client.until(lambda: racing in client.ended)
        assert client.statuses[racing] == "200"
        assert [goaway.last_stream_id for goaway in client.goaways] == [2**31 - 1]
        await client.closed()
        await draining


async def test_drain_lets_a_busy_connection_finish_before_goaway(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=5.0, graceful_seconds=8.0) as running:
        client = await Client.connect(running)
        busy = client.request("/wait")
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(running.server.drain())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.until(lambda: client.goaways)
        site.release.set()
        await client.until(lambda: busy in client.ended)
        await client.until(lambda: client.goaways)
        client._writer.close()
        await draining


async def test_upgrade_to_http2_is_not_offered(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        response = await running.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
        assert response.startswith(b"HTTP/1.1 200")
