"""What caches must forget, they forget: in every worker of the host, and in Redis, whoever dies meanwhile.

SQLite says what that is (`store/erasures.py`), from the very transaction that erased. Each worker follows it: at once
after a write of its own, at a word of another, and twice a second without any. Redis is told by whoever comes first,
and keeps the number up to which it has forgotten beside the values: a server that lost its memory, or got an old one
back, says so itself, and a worker that is killed leaves nothing undone that another does not see. While Redis does not
answer nothing is given up: a look each half second costs one query.

A purge is an order, not an erasure: it goes to Redis first, so that no L1 is filled from there again, then to every L1.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ragagent.cache import keys
from ragagent.cache.fetched import Purged
from ragagent.cache.tiered import TieredCache
from ragagent.remote.bus import Bus
from ragagent.remote.connection import NoReply, Remote
from ragagent.store import erasures
from ragagent.store.database import Database, Transaction
from ragagent.store.erasures import Progress, Purge
from ragagent.types import Erasure

POLL_SECONDS = 0.5
LEAVE_SECONDS = 1.0
CURSOR_SECONDS = 40 * 24 * 3600.0  # longer than a value lives
UNLINKED = 500  # keys at once

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _News:
    progress: Progress
    erasures: Sequence[Erasure]
    purges: Sequence[Purge]


class Eraser:
    """One per worker. `wake` makes it look now. `remote` and `bus`: None where there is no Redis."""

    def __init__(
        self, database: Database, cache: TieredCache, remote: Remote | None = None, bus: Bus | None = None
    ) -> None:
        self._database = database
        self._cache = cache
        self._remote = remote
        self._bus = bus
        self._cursor = ""  # the name under which Redis keeps its number
        self._erased = 0  # followed up to here
        self._purged = 0
        self._confirmed: int | None = None  # by Redis; None: it has to be asked
        self._unlinked: list[str] = []  # keys that were held here, and may be in Redis under no tag
        self._ordered: deque[str] = deque(maxlen=1000)  # tokens of purges that are done here
        self._token: str | None = None  # of the last purge that came by the bus
        self._knows_token = False
        self._is_told = False  # the others know already
        self._has_joined = False  # the bus, and does not know yet what it has missed
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_troubled = False
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        """Learn all that was ever erased, so that nothing older is taken in, and follow from there."""
        news, identity = await self._database.view(lambda tx: (self._news(tx), erasures.identity(tx)))
        self._cursor = f"rag:erased:{identity:x}"
        for erasure in news.erasures:
            self._cache.erase(erasure)
        self._erased, self._purged = news.progress.erased, news.progress.purged
        if self._bus is not None:
            self._bus.start(self._on_word, self._on_join)
        self._task = asyncio.create_task(self._follow(), name="eraser")
        self.wake()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._bus is not None:
            await self._bus.aclose()
        if self._task is not None:
            # Told, not cancelled: a step under way had better end.
            self._is_leaving = True
            self.wake()
            _, late = await asyncio.wait([self._task], timeout=LEAVE_SECONDS)
            for task in late:
                task.cancel()

    def wake(self) -> None:
        self._woken.set()

    async def purge(self, prefix: str | None = None) -> Purged:
        """Drop all that is cached under `prefix` (None: all), in Redis and in every worker. Raises Invalid."""
        purged = await self._cache.purge(prefix)
        prefix = prefix or keys.PREFIX
        number = await self._database.update(lambda tx: erasures.add_purge(tx, prefix))
        token = self._name_of(number)
        self._ordered.append(token)
        if self._bus is not None:
            await self._bus.tell(f"purge {token} {prefix}", token)
        return purged

    async def step(self) -> None:
        """Do all that is known of by now. Raises what SQLite raises; Redis' silence only leaves something to do."""
        is_told, self._is_told = self._is_told, False
        news = await self._database.view(self._news)
        self._purge_local(news)
        is_new = news.progress.erased > self._erased
        for erasure in news.erasures:
            self._unlinked += self._cache.erase(erasure)
        self._erased = news.progress.erased
        if self._bus is not None and is_new and not is_told:
            await self._bus.tell("erased")
        if self._remote is not None:
            await self._catch_up(self._remote)
            await self._erase_remote(self._remote, news.progress.erased)

    async def _follow(self) -> None:
        while not self._is_leaving:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.step()
            except Exception as exc:  # It has to be tried again, whatever it was: nobody else will.
                if not self._is_troubled:
                    log.warning("What was erased cannot be looked up.", exc_info=exc)
                self._is_troubled = True
            else:
                self._is_troubled = False

    def _news(self, tx: Transaction) -> _News:
        progress = erasures.progress(tx)
        return _News(
            progress,
            erasures.after(tx, self._erased) if progress.erased > self._erased else [],
            erasures.purges_after(tx, self._purged) if progress.purged > self._purged else [],
        )

    def _purge_local(self, news: _News) -> None:
        if news.purges and news.purges[0].number > self._purged + 1:
            self._cache.forget()  # Of more than are remembered.
        for purge in news.purges:
            if self._name_of(purge.number) not in self._ordered:
                self._cache.forget(purge.prefix)
        self._purged = news.progress.purged

    def _name_of(self, purge: int) -> str:
        """Return a purge's token: of this host's, unless another host says the same database's name."""
        return f"{self._cursor.rpartition(':')[2]}-{purge}"

    # The bus

    def _on_word(self, word: bytes) -> None:
        kind, *rest = word.decode("utf-8", "replace").split(" ", 2)
        if kind == "erased":
            self._is_told = True
            self.wake()
        elif kind == "purge" and len(rest) == 2:
            self._token, self._knows_token = rest[0], True
            if self._token not in self._ordered:
                self._ordered.append(self._token)
                self._cache.forget(rest[1])

    def _on_join(self) -> None:
        self._has_joined = True
        self._confirmed = None  # It may be another server, or one with an older memory.
        self.wake()

    async def _catch_up(self, remote: Remote) -> None:
        """Having joined: drop everything if there was a purge meanwhile, or the server cannot say."""
        if self._bus is None or not self._has_joined:
            return
        token = await self._bus.token()
        if isinstance(token, NoReply):
            return
        self._has_joined = False
        if self._knows_token and token != self._token:
            self._cache.forget()
        self._token, self._knows_token = token, True

    # Redis

    async def _erase_remote(self, remote: Remote, erased: int) -> None:
        while self._unlinked:
            if isinstance(await remote.unlink(*self._unlinked[:UNLINKED]), NoReply):
                return
            del self._unlinked[:UNLINKED]
        if self._confirmed is None or self._confirmed < erased:
            reply = await remote.get(self._cursor)  # Another worker may have done it.
            if isinstance(reply, NoReply):
                return
            self._confirmed = int(reply) if reply is not None and reply.isdigit() else 0
        if self._confirmed >= erased:
            return
        confirmed = self._confirmed
        for erasure in await self._database.view(lambda tx: erasures.after(tx, confirmed)):
            if not await self._cache.erase_remote(erasure):
                return
        if await remote.set(self._cursor, str(erased).encode(), CURSOR_SECONDS) is None:
            self._confirmed = erased
