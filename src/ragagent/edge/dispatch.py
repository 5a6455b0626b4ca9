"""The first bytes of a connection decide who serves it.

    HTTP/2's preface                       Hypercorn
    everything else                        llhttp (http1.py), or Hypercorn with `server.http1 = "hypercorn"`
    a request that would leave HTTP/1.1    Hypercorn: llhttp's lane hands over what it has read, when it meets one

Both lanes call the same application, under the same drain and guard.
"""

from __future__ import annotations

import asyncio
from typing import cast

from ragagent.edge.connections import Connections
from ragagent.edge.http1 import Http1
from ragagent.edge.lanes import Lanes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Dispatch(asyncio.Protocol):
    """A connection whose client has not said enough yet."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, lanes: Lanes, connections: Connections) -> None:
        self._lanes = lanes
        self._connections = connections
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._lanes.is_llhttp:
            self._lanes.hypercorn.take(self._transport, b"", self._connections)
            return
        self._timer = asyncio.get_running_loop().call_later(self._lanes.idle_seconds, self._transport.abort)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.startswith(PREFACE):
            self._lanes.hypercorn.take(self._transport, self._received, self._connections)
        elif PREFACE.startswith(self._received):
            return  # It may still become one: POST begins with a P as well.
        else:
            lane = Http1(self._lanes, self._transport, self._connections)
            self._transport.set_protocol(lane)
            lane.data_received(self._received)
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def dismiss(self, *, busy_too: bool) -> bool:
        return False

    async def finish(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _leave(self) -> None:
        """End this protocol, not the connection."""
        self._timer.cancel()
        self._connections.discard(self)
