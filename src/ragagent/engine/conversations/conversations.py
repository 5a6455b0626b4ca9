"""Conversations: turns that are on disk when their client hears of them, and sessions, which keep them in order.

The truth is SQLite, as for everything else. A turn is one transaction, after its answer is complete and before the
client gets the end of it; so a turn is there whole, or its client knows nothing of it and may try again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio

from ragagent.config import Session as Settings
from ragagent.engine.conversations.talk import Seen, State, Talk, Waiting
from ragagent.errors import NotFound, OverQuota, TooLarge
from ragagent.store import sessions, turns
from ragagent.store.database import Database, Transaction
from ragagent.store.session_locks import SessionLock, SessionLocks
from ragagent.store.sessions import Bounds
from ragagent.store.turns import TurnRow
from ragagent.types import Caller, Message, Turn


class Conversations:
    def __init__(self, database: Database, locks: SessionLocks, settings: Settings) -> None:
        self._database = database
        self._locks = locks
        self._settings = settings
        self._bounds = Bounds(settings.max_turns, settings.max_bytes, settings.idle_seconds)

    async def admit(self, caller: Caller, messages: Sequence[Message]) -> None:
        """Refuse, before any work, what could not be kept. Raises TooLarge (param messages), OverQuota."""
        said = sum(len(message.content.encode()) for message in messages)
        if said > self._settings.turn_bytes:
            raise TooLarge(
                f"'messages' holds {said} bytes; a turn that is kept may have {self._settings.turn_bytes}.",
                param="messages",
            )
        limit = self._settings.tenant_bytes
        if limit and (await self._database.view(lambda tx: turns.totals(tx, caller.tenant)))[1] >= limit:
            raise OverQuota(f"The conversations that are kept take {limit} bytes, which is all that they may.")

    async def chain(self, caller: Caller, turn_id: str) -> tuple[Turn, ...]:
        """Return the line that ends with this turn, oldest first, its newest part within the bounds.

        Raises NotFound (param previous_response_id).
        """
        bounds = self._bounds
        return await self._database.view(
            lambda tx: turns.chain(tx, caller, turn_id, max_turns=bounds.turns, max_bytes=bounds.bytes)
        )

    async def add(self, caller: Caller, turn: Turn, parent: str | None = None) -> None:
        """Keep a turn of no session; it is on disk when this returns. Raises NotFound, Conflict, StorageFull."""
        with anyio.CancelScope(shield=True):  # What has been answered is kept, whether or not the client still listens.
            await self._database.update(lambda tx: turns.add(tx, caller, turn, parent))

    async def get(self, caller: Caller, turn_id: str) -> Turn:
        """Raises NotFound."""
        found = await self._database.view(lambda tx: turns.find(tx, caller, turn_id))
        if found is None:
            raise NotFound(f"There is no turn '{turn_id:.80}', or not any more.")
        return found

    async def delete(self, caller: Caller, turn_id: str) -> None:
        """Erase what a turn holds. Turns that follow it stay, and go on without it. Raises NotFound."""
        await self._database.update(lambda tx: turns.erase(tx, caller, turn_id))

    @asynccontextmanager
    async def session(
        self, caller: Caller, name: str, key: str | None = None, fingerprint: bytes = b""
    ) -> AsyncIterator[Talk]:
        """Hold the session of that name, alone, until the block ends: `append` to the Talk what was answered.

        With an idempotency `key` that has made a turn already, that turn is the Talk's `replayed`, and nothing is to be
        appended. Raises Conflict (session_busy): another turn is under way and takes too long; Invalid
        (idempotency_key_reused): the key has made a turn of a request with another `fingerprint`; OverQuota.
        """
        waiting = Waiting(self._settings.wait_seconds)
        lock = await self._locked(_lock_name(caller, name), waiting)
        try:
            yield await self._talk(caller, name, key, fingerprint)
        finally:
            lock.close()

    async def _locked(self, session: str, waiting: Waiting) -> SessionLock:
        while (lock := self._locks.take(session)) is None:
            await waiting.once_more()
        return lock

    async def _talk(self, caller: Caller, name: str, key: str | None, fingerprint: bytes) -> Talk:
        seen = await self._database.view(partial(self._see, caller, name, key))
        if seen.session is None:
            await self._check_room(caller)

        async def keep(row: TurnRow) -> State:
            work = partial(self._append, caller, name, row)
            return "ok" if await self._database.update(work) else "branched"

        return Talk(seen, key, fingerprint, keep)

    def _see(self, caller: Caller, name: str, key: str | None, tx: Transaction) -> Seen:
        found = sessions.find(tx, caller, name, time.time())
        if found is None:
            return Seen(None)
        by_key = None if key is None else sessions.by_key(tx, found, key)
        return Seen(found, sessions.line(tx, found, self._bounds), by_key)

    def _append(self, caller: Caller, name: str, row: TurnRow, tx: Transaction) -> bool:
        return sessions.append(tx, caller, name, row, self._bounds, time.time())

    async def _check_room(self, caller: Caller) -> None:
        limit = self._settings.tenant_sessions
        if limit and (await self._database.view(lambda tx: turns.totals(tx, caller.tenant)))[0] >= limit:
            raise OverQuota(f"There are {limit} sessions, which is all that there may be.")


def _lock_name(caller: Caller, name: str) -> str:
    return "\0".join((caller.tenant, turns.reach(caller), name))
