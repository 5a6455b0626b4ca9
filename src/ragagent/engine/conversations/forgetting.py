"""Turns and sessions whose time is over are erased, in slices: the one SQLite writer is shared with every upload.

A session that is over is treated as gone before it is erased, so how often this looks is a matter of room alone.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ragagent.config import Session as Settings
from ragagent.errors import RagagentError
from ragagent.store import sessions, turns
from ragagent.store.database import Database, Transaction

EVERY_SECONDS = 60.0
PAUSE_SECONDS = 0.05  # between two slices, for other writers
SESSIONS = 10  # in a slice, each with all its turns
TURNS = 200

log = logging.getLogger("ragagent.indexer")


class Forgetting:
    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def run(self) -> None:
        while True:
            try:
                await self.once()
            except RagagentError as exc:  # A full disk or a busy database passes.
                log.error("old turns could not be erased yet: %s", exc.message, exc_info=exc.__cause__)
            await asyncio.sleep(EVERY_SECONDS)

    async def once(self) -> None:
        """Erase all that is over now."""
        while await self._database.update(self._slice):  # noqa: ASYNC110  Other writers get their turn meanwhile.
            await asyncio.sleep(PAUSE_SECONDS)

    def _slice(self, tx: Transaction) -> bool:
        now = time.time()
        erased = sessions.erase_expired(tx, now, SESSIONS)
        return bool(erased + turns.erase_old(tx, now - self._settings.max_age_seconds, TURNS))
