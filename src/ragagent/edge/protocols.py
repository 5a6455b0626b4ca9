"""What we mend in Hypercorn 0.18's protocols. `install` puts both in place; a contract test pins what they rely on.

HTTP/2: a response that ends before its request body (401, 413) leaves DATA for a stream that is gone; Hypercorn then
raises KeyError, and its task group takes every other stream of the connection down (hypercorn#329). And there is no
GOAWAY at a graceful end, so a pool never learns that it should move on.

HTTP/1.1: `Upgrade: h2c` switches a connection to HTTP/2 behind the back of a proxy that forwards the header and keeps
filtering HTTP/1.1. RFC 9113 dropped that upgrade; HTTP/2 by prior knowledge stays.
"""

from __future__ import annotations

from typing import Any

import h11
import hypercorn.protocol
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from hyperframe.frame import GoAwayFrame

_EVERY_STREAM = 2**31 - 1


class Http2(H2Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.streams = _Streams()

    @property
    def is_idle(self) -> bool:
        return not self.streams

    def goaway(self) -> bytes:
        """Return the frame that asks the client to open its next stream elsewhere, and promises to answer the racers.

        Built by hand: h2's own `close_connection` would refuse every frame after it, running streams included.
        """
        return GoAwayFrame(stream_id=0, last_stream_id=_EVERY_STREAM).serialize()


class Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Recognise HTTP/2's connection preface, and no upgrade to it."""
        if (event.method, event.target, event.http_version) == (b"PRI", b"*", b"2.0"):
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])


def install() -> None:
    """Make Hypercorn build these for every connection. ProtocolWrapper looks both names up in its own module."""
    hypercorn.protocol.H2Protocol = Http2  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = Http1  # type: ignore[attr-defined]


class _Streams(dict[int, Any]):
    """The open streams; a frame for one that has ended goes nowhere."""

    def __missing__(self, stream_id: int) -> _Sink:
        return _SINK


class _Sink:
    async def handle(self, event: object) -> None:
        return None


_SINK = _Sink()
