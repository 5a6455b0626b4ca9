"""One HTTP/2 connection by prior knowledge, as a pool sees it: many streams, and after GOAWAY no new one.

h2 takes GOAWAY for the end of everything and refuses the frames of streams that are still being answered. So the frames
are cut here, and that one is kept from it.
"""

from __future__ import annotations

import asyncio

import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from reloading.tally import Lost, Watch

HOST = "127.0.0.1"
_HEAD_BYTES = 9
_GOAWAY = 0x7


class Refused(Exception):
    """The server said that it has not touched this request: a pool sends it again elsewhere, and nobody notices."""


class Stream:
    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.body = b""
        self.status = ""
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def finish(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None and self.status != "200":
            error = Lost(f"status {self.status}")
        if error is None:
            self.done.set_result(self.body)
        else:
            self.done.set_exception(error)


class Http2:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h2.connection.H2Connection()
        self._streams: dict[int, Stream] = {}
        self._last_stream_id: int | None = None  # the newest that the server will still answer; None: no GOAWAY yet
        self._has_ended = False
        self._http.initiate_connection()
        self._flush()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, port: int) -> Http2:
        try:
            return cls(*await asyncio.open_connection(HOST, port))
        except OSError as exc:
            raise Lost(f"connecting: {exc.strerror}") from exc

    @property
    def is_reusable(self) -> bool:
        room = self._http.remote_settings.max_concurrent_streams - self._http.open_outbound_streams
        return self._last_stream_id is None and not self._has_ended and room > 0

    @property
    def is_idle(self) -> bool:
        return not self._streams

    async def get(self, path: str, watch: Watch) -> bytes:
        number = self._http.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", path)]
        self._http.send_headers(number, head, end_stream=True)
        self._streams[number] = stream = Stream(watch)
        self._flush()
        try:
            return await stream.done
        except asyncio.CancelledError:  # It took too long: nobody trusts this connection any more.
            self._has_ended = True
            raise
        finally:
            self._streams.pop(number, None)

    def close(self) -> None:
        self._reading.cancel()
        self._writer.close()

    async def _read(self) -> None:
        unread = b""
        reason = "end of file before the answer's end"
        try:
            while data := await self._reader.read(65_536):
                unread = self._take(unread + data)
        except (OSError, h2.exceptions.ProtocolError) as exc:
            reason = type(exc).__name__
        self._has_ended = True
        for number, stream in self._streams.items():
            stream.finish(self._end_of(number, reason))

    def _take(self, data: bytes) -> bytes:
        """Take the whole frames in `data`, and return what is left."""
        while len(data) >= _HEAD_BYTES and len(data) >= (size := _HEAD_BYTES + int.from_bytes(data[:3], "big")):
            frame, data = data[:size], data[size:]
            if frame[3] == _GOAWAY:
                self._last_stream_id = int.from_bytes(frame[9:13], "big")
            else:
                for event in self._http.receive_data(frame):
                    self._handle(event)
        self._flush()
        return data

    def _handle(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        stream = self._streams.get(number) if number is not None else None
        if isinstance(event, h2.events.DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if stream is None or number is None:
            return
        stream.watch.heard()
        if isinstance(event, h2.events.ResponseReceived):
            stream.status = _status(event)
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            stream.finish()
        elif isinstance(event, h2.events.StreamReset):
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            stream.finish(Refused() if refused else self._end_of(number, f"RST_STREAM {event.error_code!r}"))

    def _end_of(self, number: int, reason: str) -> Exception:
        promised = self._last_stream_id is None or number <= self._last_stream_id
        return Lost(reason) if promised else Refused()

    def _flush(self) -> None:
        self._writer.write(self._http.data_to_send())


def _status(event: h2.events.ResponseReceived) -> str:
    return next((value.decode() for name, value in event.headers if name == b":status"), "")
