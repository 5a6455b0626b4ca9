"""One TCP connection: Hypercorn's TCPServer, without its afterlife, and with a way to say goodbye over HTTP/2."""

from __future__ import annotations

from hypercorn.asyncio.tcp_server import TCPServer

from ragagent.edge.protocols import Http2


class Connection(TCPServer):
    async def _read_data(self) -> None:
        """Read until the client closes, and end with it.

        Hypercorn's idle timer outlives the client: the connection would count for another keep-alive time, in every
        number that is shown and in every drain that waits for it.
        """
        await super()._read_data()
        await self.idle_task.stop()

    @property
    def http2(self) -> Http2 | None:
        """The protocol, if the client speaks HTTP/2; only known once it has spoken."""
        wrapper = getattr(self, "protocol", None)
        protocol = getattr(wrapper, "protocol", None)
        return protocol if isinstance(protocol, Http2) else None

    def dismiss(self, *, busy_too: bool) -> bool:
        """Send GOAWAY on HTTP/2, between streams or, with `busy_too`, in any case; whether it was sent."""
        http2 = self.http2
        if http2 is None or self.writer.is_closing() or not (http2.is_idle or busy_too):
            return False
        self.writer.write(http2.goaway())
        return True

    def abort(self) -> None:
        """Cut it. A client that does not read would hold a mere close for ever."""
        self.writer.transport.abort()
