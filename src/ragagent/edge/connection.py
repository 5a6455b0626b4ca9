"""The Hypercorn lane: HTTP/2, upgrades, and HTTP/1.1 where the configuration says so.

A connection here is Hypercorn's TCPServer, without its afterlife, and with a way to say goodbye over HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from ragagent.edge import protocols
from ragagent.edge.connections import Connections
from ragagent.edge.guard import App
from ragagent.edge.protocols import Http2

# Hypercorn closes a connection after 1000 requests, and over HTTP/2 it does so under the feet of running streams.
UNLIMITED = 2**31

logger = logging.getLogger("ragagent.edge")


class Hypercorn:
    """What all connections on this lane share. `take` puts one on it."""

    def __init__(self, app: App, state: dict[str, Any], idle_seconds: float) -> None:
        protocols.install()
        self._app = ASGIWrapper(cast(Any, app))
        self._state = state
        self._config = _config(idle_seconds)
        self._context = WorkerContext(None)

    def take(self, transport: asyncio.Transport, received: bytes, connections: Connections) -> None:
        """Serve `transport` from here on; `received` is what its client has already said."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        reader.feed_data(received)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = Connection(self._app, loop, self._config, self._context, self._state, reader, writer)
        connection.start(connections)


class Connection(TCPServer):
    _task: asyncio.Task[None]

    def start(self, connections: Connections) -> None:
        connections.add(self)
        # An empty context: this may be called from within a request, and its trace is not this connection's.
        self._task = self.loop.create_task(self._serve(connections), context=contextvars.Context())

    async def _serve(self, connections: Connections) -> None:
        try:
            await self
        except (Exception, BaseExceptionGroup) as exc:  # Else asyncio prints a traceback for every aborted client.
            logger.warning("A connection ended with %r.", exc)
        finally:
            connections.discard(self)

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
        http2 = self.http2
        if http2 is None or self.writer.is_closing() or not (http2.is_idle or busy_too):
            return False
        self.writer.write(http2.goaway())
        return True

    async def finish(self) -> None:
        await self.context.terminated.set()  # Hypercorn has one such word for all connections of a server.

    def abort(self) -> None:
        self.writer.transport.abort()
        self._task.cancel()


def _config(idle_seconds: float) -> Config:
    config = Config()
    # Hypercorn bounds slow request heads with the same number.
    config.keep_alive_timeout = idle_seconds
    config.keep_alive_max_requests = UNLIMITED
    # It counts between bytes from the client, so it would cut every long answer. Slow bodies are bounded by the API.
    config.read_timeout = None
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logger
    return config
