"""One HTTP server in one process: Hypercorn's parts, composed so that a reload loses no request.

`hypercorn.asyncio.worker_serve` cannot be used as it is: it takes no inherited sockets through its public door, says
nothing when it begins to accept, closes idle connections at once when it ends, and its end can wait for ever on one
client. So we put its TCPServer, WorkerContext and Config together ourselves. The order of the end, and why:

    1. stop accepting     the listener's other holders (new workers) take what arrives from now on
    2. lame duck          idle connections stay open, each further answer carries `Connection: close`; HTTP/2: GOAWAY
    3. terminated         Hypercorn's word for it: idle connections close, answers in progress finish
    4. abort              what has outlived the budget
    5. lifespan shutdown  nothing uses the application any more

1 to 4 share one budget, `settings.graceful_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from ragagent.config import Server as Settings
from ragagent.edge import protocols
from ragagent.edge.connection import Connection
from ragagent.edge.drain import Drain
from ragagent.edge.guard import App, Guard
from ragagent.edge.lifespan import Lifespan

# asyncio accepts up to `backlog` connections per turn of the loop, so a large one lets one worker swallow a burst.
ACCEPTS_PER_TURN = 16
# Connections accepted in the turn that closes the listener would hang (an assertion in asyncio's Server._attach).
SETTLE_SECONDS = 0.05
# After the budget: enough for cancelled connections and a prompt lifespan, within the supervisor's 2 s of mercy.
ABORT_SECONDS = 0.5
SHUTDOWN_SECONDS = 1.0
# Hypercorn closes a connection after 1000 requests, and over HTTP/2 it does so under the feet of running streams.
UNLIMITED = 2**31
DEFAULT_HEAD_SECONDS = 5.0

logger = logging.getLogger("ragagent.edge")


class Server:
    """Serves `app` on `listeners`, and closes them when it drains: nobody in this process accepts any more.

    `startup`, then `accept`, then `drain`, each once. `drain` straight after `startup` is right too.
    """

    def __init__(self, app: App, listeners: Sequence[socket.socket], settings: Settings) -> None:
        protocols.install()
        self._listeners = listeners
        self._settings = settings
        # No keep-alive at all is the same courtesy as a drain, from the first request on.
        self._drain = Drain(Guard(app), closing=settings.keep_alive_seconds == 0)
        self._lifespan = Lifespan(self._drain)
        self._app = ASGIWrapper(cast(Any, self._drain))
        self._config = _hypercorn_config(settings)
        self._context = WorkerContext(None)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[Any], Connection] = {}
        self._dismissed: set[Connection] = set()
        self._attached: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Requests that the application is working on."""
        return self._drain.in_flight

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def requests(self) -> int:
        """Requests taken since the start."""
        return self._drain.requests

    async def startup(self) -> None:
        """Run the application's lifespan startup; raises Unavailable when it fails."""
        await self._lifespan.startup()

    async def accept(self) -> None:
        """Begin to accept. Returns at once; from here on requests are answered."""
        for listener in self._listeners:
            # A duplicate, because asyncio takes over what it is given, and the next line needs the listener.
            server = await asyncio.start_server(self._serve, sock=listener.dup(), backlog=ACCEPTS_PER_TURN)
            # start_server has just called listen(16) on the queue that all workers share.
            listener.listen(self._settings.backlog)
            self._servers.append(server)

    def attach(self, connection: socket.socket) -> None:
        """Answer on one connection that is there already: a probe, which comes with its question."""
        task = asyncio.get_running_loop().create_task(self._attach(connection), name="probe")
        self._attached.add(task)
        task.add_done_callback(self._attached.discard)

    async def _attach(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        await self._serve(reader, writer)

    async def drain(self) -> None:
        """Finish what is in flight and end the application, within graceful_seconds and a breath."""
        deadline = asyncio.get_running_loop().time() + self._settings.graceful_seconds
        await self._stop_accepting()
        await self._lame_duck(deadline)
        await self._context.terminated.set()
        await self._wait(deadline)
        await self._abort()
        await self._lifespan.shutdown(SHUTDOWN_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop, state = asyncio.get_running_loop(), self._lifespan.state
        connection = Connection(self._app, loop, self._config, self._context, state, reader, writer)
        self._connections[task] = connection
        try:
            await connection
        except (Exception, BaseExceptionGroup) as exc:  # Else asyncio prints a traceback for every aborted client.
            logger.warning("A connection ended with %r.", exc)
        finally:
            del self._connections[task]
            self._dismissed.discard(connection)

    async def _stop_accepting(self) -> None:
        self._drain.closing = True
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        await asyncio.sleep(SETTLE_SECONDS)
        for server in self._servers:
            server.close()  # Never wait_closed(): since Python 3.12.1 it waits for every connection, without a limit.
        for listener in self._listeners:
            listener.close()  # Never shutdown(), which would end it for every process that shares it.

    async def _lame_duck(self, deadline: float) -> None:
        """Keep answering on the connections there are, until they have gone or their keep-alive time is over."""
        now = asyncio.get_running_loop().time
        over = min(now() + self._settings.keep_alive_seconds + 0.5, deadline)
        last_call = over - (over - now()) / 2
        while self._connections and now() < over:
            self._dismiss_http2(busy_too=now() >= last_call)
            await asyncio.wait(list(self._connections), timeout=SETTLE_SECONDS)

    def _dismiss_http2(self, *, busy_too: bool) -> None:
        """Send GOAWAY once per connection: between streams if we can, as some clients take it for the end of all."""
        for connection in set(self._connections.values()) - self._dismissed:
            if connection.dismiss(busy_too=busy_too):
                self._dismissed.add(connection)

    async def _wait(self, deadline: float) -> None:
        remaining = deadline - asyncio.get_running_loop().time()
        if self._connections and remaining > 0:
            # Not gather: the first connection to fail would end the wait for all others.
            await asyncio.wait(list(self._connections), timeout=remaining)

    async def _abort(self) -> None:
        tasks = list(self._connections.items())
        for task, connection in tasks:
            connection.abort()
            task.cancel()
        if tasks:
            grace = self._settings.graceful_seconds
            logger.warning("Cut %d connections that outlived the %g s of grace.", len(tasks), grace)
            await asyncio.wait([task for task, _ in tasks], timeout=ABORT_SECONDS)


def _hypercorn_config(settings: Settings) -> Config:
    config = Config()
    # Hypercorn bounds slow request heads with the same number, so zero would close a connection before it can speak.
    config.keep_alive_timeout = settings.keep_alive_seconds or DEFAULT_HEAD_SECONDS
    config.keep_alive_max_requests = UNLIMITED
    # It counts between bytes from the client, so it would cut every long answer. Slow bodies are bounded by the API.
    config.read_timeout = None
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logger
    return config
