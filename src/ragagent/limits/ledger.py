"""Where limits are counted: in Redis while it answers, else in the host's table; in the table alone without Redis.

What Redis decides is written down in the table as well, and what the table decided goes to Redis with the next request.
So the one can go on from where the other was: while Redis goes and comes, the callers of one host get what their limits
say. Several hosts without Redis count each for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from ragagent.errors import Unavailable
from ragagent.limits.gcra import SECOND, Demand, Seat, Taken
from ragagent.limits.shared import Known, Shared
from ragagent.limits.table import Busy, Table
from ragagent.remote.connection import NoReply, Remote

T = TypeVar("T")
OnRedisDown = Literal["local", "open", "closed"]

LEASE_SECONDS = 30.0  # so long what a killed worker held stays taken
RENEW_SECONDS = 10.0
LOCK_SECONDS = 0.1
LOCK_POLL_SECONDS = 0.001

_LEASE = int(LEASE_SECONDS * SECOND)
_FREE = Taken(True)

log = logging.getLogger(__name__)


class Ledger:
    """The buckets and seats of every caller, by key.

    `path` is where the host's table lies, or will; `on_degraded` hears of each decision that Redis should have made.
    """

    def __init__(
        self,
        path: Path,
        remote: Remote | None,
        on_redis_down: OnRedisDown = "local",
        on_degraded: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._shared = Shared(remote) if remote is not None else None
        self._on_redis_down = on_redis_down
        self._on_degraded = on_degraded
        self._table: Table | None = None
        self._is_without_table = False
        self._is_degraded = False

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    async def take(self, demands: Sequence[Demand], seats: Sequence[Seat]) -> Taken:
        """Take all that is asked for, or nothing. Raises Unavailable: Redis is away, and none may decide in its place.

        `seats` have one holder.
        """
        taken = await self._shared_take(demands, seats) if self._shared is not None else None
        if taken is not None:
            return taken
        return await self._locally(lambda table: table.take(demands, seats, _LEASE)) or _FREE

    async def add(self, demands: Sequence[Demand], seats: Sequence[Seat] = ()) -> Sequence[int]:
        """Add each cost, which may be below zero, whatever the capacity, and give the seats up; return the levels."""
        if self._shared is not None:
            levels = await self._shared.add(demands, seats, self._known(demands))
            if not isinstance(levels, NoReply):
                await self._note(demands, levels)
                await self._locally(lambda table: table.add((), seats) if seats else None)
                return levels
        return await self._locally(lambda table: table.add(demands, seats)) or ()

    async def hold(self, seats: Sequence[Seat]) -> None:
        """Keep holding the seats, which have one holder."""
        await self._locally(lambda table: table.hold(seats, _LEASE))
        if self._shared is not None:
            await self._shared.hold(seats, _LEASE)

    async def _shared_take(self, demands: Sequence[Demand], seats: Sequence[Seat]) -> Taken | None:
        """Return what Redis says; None: it says nothing, and the table is to decide."""
        assert self._shared is not None
        taken = await self._shared.take(demands, seats, _LEASE, self._known(demands))
        if isinstance(taken, NoReply):
            self._on_degraded()
            if taken in (NoReply.OPEN, NoReply.REFUSED):  # The others are one request's bad luck.
                self._turn(is_degraded=True)
            if self._on_redis_down == "closed":
                raise Unavailable("The rate limits cannot be checked now, since Redis does not answer.", retry_after=1)
            return _FREE if self._on_redis_down == "open" else None
        self._turn(is_degraded=False)
        spent = [demand.cost if taken.is_allowed else 0 for demand in demands]
        await self._note(demands, [level + cost for level, cost in zip(taken.levels, spent, strict=True)])
        if seats and taken.is_allowed:
            await self._locally(lambda table: table.hold(seats, _LEASE))
        return taken

    def _known(self, demands: Sequence[Demand]) -> Known:
        with contextlib.suppress(Busy):
            if (table := self._opened()) is not None:
                return table.known(demands)
        return [(0, False)] * len(demands)

    async def _note(self, demands: Sequence[Demand], levels: Sequence[int]) -> None:
        noted = [(demand.key, level) for demand, level in zip(demands, levels, strict=True)]
        await self._locally(lambda table: table.note(noted))

    async def _locally(self, work: Callable[[Table], T]) -> T | None:
        """Return what the work on the table returns; None: it could not be had in time, or not at all."""
        waited = 0.0
        while waited < LOCK_SECONDS:
            try:
                table = self._opened()
                return None if table is None else work(table)
            except Busy:
                # Somebody who holds it for microseconds was interrupted in them. The loop goes on meanwhile.
                await asyncio.sleep(LOCK_POLL_SECONDS)
                waited += LOCK_POLL_SECONDS
        return None

    def _opened(self) -> Table | None:
        """Return the table, made at the first use: where nobody is limited there is none. Raises Busy."""
        if self._table is None:
            try:
                self._table = Table(self._path)
            except OSError as exc:
                if not self._is_without_table:
                    log.error("The limits of this host cannot be kept in %s: %s.", self._path.name, exc.strerror)
                self._is_without_table = True
                return None
            self._is_without_table = False
        return self._table

    def _turn(self, *, is_degraded: bool) -> None:
        if is_degraded != self._is_degraded:
            self._is_degraded = is_degraded
            if is_degraded:
                ways = {
                    "local": "each host counts for itself",
                    "open": "every request is let through",
                    "closed": "every limited request is refused",
                }
                log.warning("Rate limits go on without Redis: %s.", ways[self._on_redis_down])
            else:
                log.info("Rate limits are counted in Redis.")
