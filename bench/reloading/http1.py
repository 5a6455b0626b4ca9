"""One keep-alive HTTP/1.1 connection, as a pool sees it."""

from __future__ import annotations

import asyncio

import h11

from reloading.tally import Lost, Watch

HOST = "127.0.0.1"


class Http1:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, port: int) -> Http1:
        try:
            return cls(*await asyncio.open_connection(HOST, port))
        except OSError as exc:
            raise Lost(f"connecting: {exc.strerror}") from exc

    @property
    def is_reusable(self) -> bool:
        """Whether the next request may use it: the server has said neither `Connection: close` nor end of file."""
        has_ended = self._reader.at_eof() or self._reader.exception() is not None
        return self._http.our_state is h11.IDLE and not has_ended

    async def get(self, path: str, watch: Watch) -> bytes:
        request = h11.Request(method="GET", target=path, headers=[("Host", HOST)])
        try:
            self.send(request)
            return await self._answer(watch)
        except h11.RemoteProtocolError as exc:
            raise Lost("end of file before the answer's end") from exc
        except OSError as exc:
            raise Lost(type(exc).__name__) from exc

    def send(self, request: h11.Request) -> None:
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))

    async def _answer(self, watch: Watch) -> bytes:
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(65_536)
                watch.heard()
                self._http.receive_data(data)
            elif isinstance(event, h11.Response) and event.status_code != 200:
                raise Lost(f"status {event.status_code}")
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return body

    def close(self) -> None:
        self._writer.close()
