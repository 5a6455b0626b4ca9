"""One HTTP server in one process: two lanes on the same sockets, composed so that a reload loses no request.

Neither uvicorn's nor Hypercorn's own server can be used as it is. `hypercorn.asyncio.worker_serve` takes no inherited
sockets through its public door, says nothing when it begins to accept, closes idle connections at once when it ends,
and its end can wait for ever on one client. So we accept ourselves, and put the parts together: dispatch.py says which
connection is served by what. The order of the end, and why:

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
from functools import partial

# anyio loads this at its first task group, while every client of a new worker waits. Here it comes before the fork.
import anyio._backends._asyncio  # noqa: F401

from ragagent.config import Server as Settings
from ragagent.edge.connection import Hypercorn
from ragagent.edge.connections import Connection, Connections
from ragagent.edge.dispatch import Dispatch
from ragagent.edge.drain import Drain
from ragagent.edge.guard import App, Guard
from ragagent.edge.lanes import Lanes
from ragagent.edge.lifespan import Lifespan

# asyncio accepts up to `backlog` connections per turn of the loop, so a large one lets one worker swallow a burst.
ACCEPTS_PER_TURN = 16
# Connections accepted in the turn that closes the listener would hang (an assertion in asyncio's Server._attach).
SETTLE_SECONDS = 0.05
# After the budget: enough for cancelled connections and a prompt lifespan, within the supervisor's 2 s of mercy.
ABORT_SECONDS = 0.5
SHUTDOWN_SECONDS = 1.0
# Without keep-alive, the time that a client has to say something.
DEFAULT_IDLE_SECONDS = 5.0

logger = logging.getLogger("ragagent.edge")


class Server:
    """Serves `app` on `listeners`, and closes them when it drains: nobody in this process accepts any more.

    `startup`, then `accept`, then `drain`, each once. `drain` straight after `startup` is right too.
    """

    def __init__(self, app: App, listeners: Sequence[socket.socket], settings: Settings) -> None:
        self._listeners = listeners
        self._settings = settings
        # No keep-alive at all is the same courtesy as a drain, from the first request on.
        self._drain = Drain(Guard(app), closing=settings.keep_alive_seconds == 0)
        self._lifespan = Lifespan(self._drain)
        idle_seconds = settings.keep_alive_seconds or DEFAULT_IDLE_SECONDS
        hypercorn = Hypercorn(self._drain, self._lifespan.state, idle_seconds)
        self._lanes = Lanes(
            self._drain, self._lifespan.state, idle_seconds, hypercorn, is_llhttp=settings.http1 == "llhttp"
        )
        self._servers: list[asyncio.Server] = []
        self._connections = Connections()
        self._attached = Connections()
        self._attaching: set[asyncio.Task[None]] = set()
        self._is_terminated = False
        self._dismissed: set[Connection] = set()

    @property
    def in_flight(self) -> int:
        """Requests that the application is working on."""
        return self._drain.in_flight

    @property
    def connections(self) -> int:
        """Connections that were accepted and are open."""
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
        loop = asyncio.get_running_loop()
        protocol = partial(Dispatch, self._lanes, self._connections)
        for listener in self._listeners:
            # Inherited by what it accepts. asyncio sets it as well, but not where the socket's `proto` is 0: then each
            # answer in two packets waits 40 ms for the client's acknowledgement of the first.
            if listener.family != socket.AF_UNIX:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # `dup` gives the mode that the object has, and ours, made of an inherited number, would say blocking: for a
            # moment the other workers' accept would wait instead of finding nothing, with all that they have in hand.
            listener.setblocking(False)
            # A duplicate, because asyncio takes over what it is given, and the next line needs the listener.
            server = await loop.create_server(protocol, sock=listener.dup(), backlog=ACCEPTS_PER_TURN)
            # create_server has just called listen(16) on the queue that all workers share.
            listener.listen(self._settings.backlog)
            self._servers.append(server)

    def attach(self, connection: socket.socket) -> None:
        """Answer on a connected stream socket as on one that was accepted; the server owns it from here on.

        For probes, from `startup` on. It counts for nothing, and no drain waits for it.
        """
        if self._is_terminated:
            connection.close()
            return
        task = asyncio.create_task(self._attach(connection), name="attach")
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def drain(self) -> None:
        """Finish what is in flight and end the application, within graceful_seconds and a breath."""
        deadline = asyncio.get_running_loop().time() + self._settings.graceful_seconds
        await self._stop_accepting()
        await self._lame_duck(deadline)
        await self._terminate()
        await self._connections.gone(max(deadline - asyncio.get_running_loop().time(), 0))
        await self._abort()
        await self._lifespan.shutdown(SHUTDOWN_SECONDS)

    async def _attach(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(partial(Dispatch, self._lanes, self._attached), connection)
        except OSError as exc:  # Whoever gave it is gone already.
            logger.warning("A connection could not be attached: %r.", exc)
            connection.close()

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
            await self._connections.gone(SETTLE_SECONDS)

    def _dismiss_http2(self, *, busy_too: bool) -> None:
        """Send GOAWAY once per connection: between streams if we can, as some clients take it for the end of all."""
        for connection in set(self._connections) - self._dismissed:
            if connection.dismiss(busy_too=busy_too):
                self._dismissed.add(connection)

    async def _terminate(self) -> None:
        self._is_terminated = True
        for connection in (*self._connections, *self._attached):
            await connection.finish()

    async def _abort(self) -> None:
        late = list(self._connections)
        for connection in (*late, *self._attached):
            connection.abort()
        if late:
            grace = self._settings.graceful_seconds
            logger.warning("Cut %d connections that outlived the %g s of grace.", len(late), grace)
        await asyncio.gather(self._connections.gone(ABORT_SECONDS), self._attached.gone(ABORT_SECONDS))
