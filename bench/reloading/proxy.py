"""A TCP proxy that adds distance: each byte, and each end of a connection, arrives half a round trip later.

    python proxy.py TARGET_PORT RTT_MS      prints its own port, and runs until it is killed

A process of its own, so that it waits for neither clients nor servers. What it cannot delay is the handshake with the
client, which the kernel does: a new connection costs a little less than over a real network.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

HOST = "127.0.0.1"

Step = Callable[[asyncio.Transport], None]


class End(asyncio.Protocol):
    """One end of a proxied connection. What it hears is done at the `other` end, in order, after the delay."""

    def __init__(self, delay: float) -> None:
        self.other: End
        self._delay = delay
        self._transport: asyncio.Transport | None = None
        self._under_way: deque[Step] = deque()
        self._arrived: deque[Step] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._do_what_has_arrived()

    def data_received(self, data: bytes) -> None:
        self._later(lambda transport: transport.write(data))

    def eof_received(self) -> bool:
        self._later(lambda transport: transport.write_eof())
        return True  # Keep the other direction open.

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(lambda transport: transport.close() if exc is None else transport.abort())

    def refuse(self) -> None:
        """Reset it: there is nobody behind."""
        self._arrived.append(lambda transport: transport.abort())
        self._do_what_has_arrived()

    def _later(self, step: Step) -> None:
        self._under_way.append(step)
        asyncio.get_running_loop().call_later(self._delay, self._arrive)

    def _arrive(self) -> None:
        self.other._arrived.append(self._under_way.popleft())
        self.other._do_what_has_arrived()

    def _do_what_has_arrived(self) -> None:
        while self._arrived and self._transport is not None:
            step = self._arrived.popleft()
            if not self._transport.is_closing():
                with contextlib.suppress(OSError):  # It was reset, and `connection_lost` is about to say so.
                    step(self._transport)


class Front(End):
    """The client's end: it connects to the target once the news of its connection has arrived there."""

    def __init__(self, target: int, delay: float) -> None:
        super().__init__(delay)
        self._target = target
        self.other = End(delay)
        self.other.other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(self._delay, self._connect)

    def _connect(self) -> None:
        self._connecting = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.other, HOST, self._target)
        except OSError:
            await asyncio.sleep(self._delay)
            self.refuse()


async def main(target: int, rtt_ms: float) -> None:
    delay = rtt_ms / 2000
    server = await asyncio.get_running_loop().create_server(lambda: Front(target, delay), HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
