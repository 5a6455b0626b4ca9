"""What could not be told while Redis was away is told when it is back, whether or not anybody asks."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import closing

from ragagent.engine.conversations.sharing import Sharing, lock_name
from ragagent.errors import RagagentError
from ragagent.store import sessions
from ragagent.store.database import Database
from ragagent.store.session_locks import SessionLocks
from ragagent.store.sessions import SessionRow

PAGE = 100
AGAIN_SECONDS = 0.5

log = logging.getLogger("ragagent.conversations")


class Retelling:
    """Idle until something is `due`: after the start, since a process may have died with something to tell, it is."""

    def __init__(self, database: Database, locks: SessionLocks, sharing: Sharing) -> None:
        self._database = database
        self._locks = locks
        self._sharing = sharing
        self._due = asyncio.Event()
        self._due.set()

    def due(self) -> None:
        self._due.set()

    async def run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                is_done = await self.once()
            except RagagentError as exc:  # A busy database or a full disk passes, like an absent Redis.
                log.warning("Sessions could not be told to the other hosts yet: %s", exc.message)
                is_done = False
            if not is_done:
                self._due.set()
                await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.75, 1.25))

    async def once(self) -> bool:
        """Tell what there is to tell; return whether that was all."""
        after, is_done = 0, True
        while found := await self._page(after):
            for session in found:
                after = session.id
                met = await self._meet(session)
                if met == "apart":
                    return False
                is_done = is_done and met == "together"
        return is_done

    async def _page(self, after: int) -> list[SessionRow]:
        return await self._database.view(lambda tx: sessions.pending(tx, time.time(), after, PAGE))

    async def _meet(self, session: SessionRow) -> str:
        lock = self._locks.take(lock_name(session.caller, session.name))
        if lock is None:
            return "busy"  # Whoever holds it tells it.
        with closing(lock):
            return await self._sharing.tell_again(session.caller, session.name)
