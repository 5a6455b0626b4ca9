"""The child's end of its lifeline: the socket between the supervisor and one child, and the duty it carries.

JSON lines, both ways:

    child → supervisor   {"state": "starting", "pid": 41}   {"state": "ready"}   {"state": "serving"}
                         {"state": "stopping"}   {"state": "finished"}   {"beat": {stats}}   {"failed": "reason"}
    supervisor → child   {"order": "serve"}   {"order": "probe"}, with a connection to answer on

End of file means that the supervisor is gone, and so the child goes. SIGTERM means: finish what you hold, then leave.
`attend` keeps all of this inside one event loop, so a beat that does not come says that the loop itself is blocked.
Stdlib only. It trusts the supervisor, and nothing that it reads is ever waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

BEAT_SECONDS = 0.5
# What only the supervisor listens to, though a whole group or unit may be sent it.
OF_SUPERVISOR = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2)
_READ_BYTES = 65_536
_READ_FDS = 16

logger = logging.getLogger("ragagent.lifeline")

Stats = Callable[[], Mapping[str, Any]]
OnProbe = Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True)
class Order:
    word: str
    connection: socket.socket | None = None  # what came with it, for the child to answer on and to close


class Lifeline:
    """What a child says to its supervisor. Nothing here blocks: a supervisor that does not read stops no child."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent = bytearray()
        self._unread = bytearray()
        self._connections: deque[socket.socket] = deque()  # arrived, and their orders not whole yet

    def starting(self) -> None:
        """Say who we are. First message of every child: from here on the supervisor can signal it."""
        self._say({"state": "starting", "pid": os.getpid()})

    def ready(self) -> None:
        """Say that everything is open and that nothing but the order to serve is missing."""
        self._say({"state": "ready"})

    def serving(self) -> None:
        """Say that the work has begun: a worker accepts, the indexer holds the writer's lock."""
        self._say({"state": "serving"})

    def stopping(self) -> None:
        """Say that no new work is taken any more, so that a replacement can start at once."""
        self._say({"state": "stopping"})

    def finished(self) -> None:
        """Say that nothing is left to answer: what takes time from here on (a collector) holds up nobody else."""
        self._say({"state": "finished"})

    def failed(self, reason: str) -> None:
        """Say why this child cannot go on; it exits next."""
        self._say({"failed": reason})

    def beat(self, stats: Mapping[str, Any]) -> None:
        """Say that the event loop turns. Skipped while older words are still unsent: a beat is worth nothing late."""
        self._flush()
        if not self._unsent:
            self._say({"beat": stats})

    def orders(self) -> list[Order] | None:
        """Return the orders that have arrived, without waiting; None when the supervisor is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._end, _READ_BYTES, _READ_FDS)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self._connections.extend(socket.socket(fileno=fd) for fd in fds)
        if not data:
            return None
        self._unread += data
        *lines, rest = bytes(self._unread).split(b"\n")
        self._unread = bytearray(rest)
        return [self._order(json.loads(line)) for line in lines]

    def _order(self, message: Mapping[str, Any]) -> Order:
        word = message["order"]
        return Order(word, self._connections.popleft() if word == "probe" else None)

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def _say(self, message: Mapping[str, Any]) -> None:
        self._unsent += json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        if not self._unsent:
            return
        try:
            sent = self._end.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:  # The supervisor is gone: `orders` says so, here there is nobody left to tell.
            sent = len(self._unsent)
        del self._unsent[:sent]


class Duty:
    """What the supervisor wants of this child, as the code that does the work awaits it."""

    def __init__(self, lifeline: Lifeline, on_probe: OnProbe) -> None:
        self._lifeline = lifeline
        self._on_probe = on_probe
        self._serve = asyncio.Event()
        self._leave = asyncio.Event()

    async def told_to_serve(self) -> bool:
        """Wait for the order to serve. False: the order was to leave, and there is nothing to drain."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._serve, self._leave)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return not self._leave.is_set()

    async def told_to_leave(self) -> None:
        await self._leave.wait()

    @property
    def leaving(self) -> bool:
        return self._leave.is_set()

    def leave(self) -> None:
        """Take SIGTERM, or the end of the supervisor, as the order to leave. Saying it twice changes nothing."""
        if self._leave.is_set():
            return
        self._leave.set()
        self._lifeline.stopping()

    def obey(self) -> bool:
        """Take what has arrived on the lifeline; False when nothing more will come."""
        orders = self._lifeline.orders()
        if orders is None:
            self.leave()
            return False
        for order in orders:
            if order.word == "serve":
                self._serve.set()
            elif order.connection is not None:
                self._on_probe(order.connection)
        return True


@contextlib.asynccontextmanager
async def attend(
    lifeline: Lifeline, stats: Stats = dict, on_probe: OnProbe = socket.socket.close
) -> AsyncIterator[Duty]:
    """Beat every 0.5 s with `stats()`, take orders and SIGTERM, for as long as the block runs.

    `on_probe` is given each connection that a probe arrives on; the default hangs up, which is an answer as well.
    Enter it before the slow part of starting: a SIGTERM that arrives then is remembered.
    """
    loop = asyncio.get_running_loop()
    duty = Duty(lifeline, on_probe)

    def read() -> None:
        if not duty.obey():
            loop.remove_reader(lifeline)

    loop.add_signal_handler(signal.SIGTERM, duty.leave)
    loop.add_reader(lifeline, read)
    beats = loop.create_task(_beat(lifeline, stats), name="lifeline")
    try:
        yield duty
    finally:
        beats.cancel()
        loop.remove_reader(lifeline)
        # Kept deaf rather than reset: a late SIGTERM must not cut what the child does between here and its exit.
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def settle_signals() -> None:
    """Give a fresh child its signals; call it before anything slow.

    SIGINT: a terminal sends Ctrl-C to the whole group, but the supervisor decides. SIGHUP and the like: `pkill -HUP`
    and `systemctl kill -s HUP` mean a reload, not the death of every worker. SIGABRT is how the supervisor ends a child
    that hangs: dump every stack first.
    """
    for number in OF_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_SUPERVISOR)  # Held since the exec, so that none came too early.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.enable(all_threads=True)


async def _beat(lifeline: Lifeline, stats: Stats) -> None:
    loop = asyncio.get_running_loop()
    lag = 0.0
    while True:
        lifeline.beat({**_collected(stats), "loop_lag_seconds": round(lag, 4)})
        due = loop.time() + BEAT_SECONDS
        await asyncio.sleep(BEAT_SECONDS)
        lag = max(loop.time() - due, 0.0)


def _collected(stats: Stats) -> Mapping[str, Any]:
    try:
        return stats()
    except Exception:  # The loop turns, which is what a beat says; numbers that cannot be had must not end a worker.
        logger.exception("The stats of this process cannot be collected.")
        return {}
