"""Conversations: turns that are on disk when their client hears of them, and sessions, which keep them in order.

The truth is SQLite, as for everything else. A turn is one transaction, after its answer is complete and before the
client gets the end of it; so a turn is there whole, or its client knows nothing of it and may try again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Self

import anyio

from ragagent import names, telemetry
from ragagent.config import Session as Settings
from ragagent.engine.conversations.retelling import Retelling
from ragagent.engine.conversations.sharing import Met, Sharing, lock_name
from ragagent.engine.conversations.talk import Seen, State, Talk, Waiting
from ragagent.errors import NotFound, OverQuota, TooLarge
from ragagent.remote.connection import Remote
from ragagent.remote.sessions import SharedSessions
from ragagent.store import sessions, turns
from ragagent.store.database import Database, Transaction
from ragagent.store.session_locks import SessionLock, SessionLocks
from ragagent.store.sessions import Bounds, SessionRow
from ragagent.store.turns import TurnRow
from ragagent.types import Caller, Message, Turn


class Conversations:
    """Without `remote`, or with session.store = "sqlite", each host has sessions of its own."""

    def __init__(
        self, database: Database, locks: SessionLocks, settings: Settings, remote: Remote | None = None
    ) -> None:
        self._database = database
        self._locks = locks
        self._settings = settings
        self._bounds = Bounds(settings.max_turns, settings.max_bytes, settings.idle_seconds)
        self._sharing: Sharing | None = None
        self._retelling: Retelling | None = None
        if remote is not None and settings.store != "sqlite":
            self._sharing = Sharing(database, _shared(remote, locks, settings), self._bounds)
            self._retelling = Retelling(database, locks, self._sharing)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Tell other hosts in the background what they could not be told, until the block ends."""
        if self._retelling is None:
            yield self
            return
        task = asyncio.create_task(self._retelling.run(), name="retelling")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})

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
        """Erase what a turn holds. Turns that follow it stay, and go on without it. Raises NotFound.

        Other hosts that have its session erase it when they next enter that, if Redis answers now; else with its age.
        """
        of_session = await self._database.update(partial(_erase, caller, turn_id))
        if of_session is not None and self._sharing is not None:
            await self._sharing.blank(*of_session)

    async def turns_of(self, caller: Caller, name: str) -> tuple[Turn, ...]:
        """Return the turns of a session, oldest first, as this host knows them. Raises NotFound."""
        seen = await self._database.view(partial(self._see, caller, name, None))
        if seen.session is None:
            raise _no_session(name)
        return tuple(row.turn for row in seen.line if not row.is_deleted)

    async def forget(self, caller: Caller, name: str) -> None:
        """Erase what all turns of a session hold, as `delete` does. Raises NotFound, Conflict (session_busy)."""
        async with self._held(caller, name):
            session, rows = await self._database.update(partial(self._forget, caller, name))
            if self._sharing is not None:
                await self._sharing.blank(session, *rows)

    def _forget(self, caller: Caller, name: str, tx: Transaction) -> tuple[SessionRow, tuple[TurnRow, ...]]:
        session = sessions.find(tx, caller, name, time.time())
        if session is None:
            raise _no_session(name)
        sessions.blank(tx, session)
        return session, sessions.line(tx, session, self._bounds)

    @asynccontextmanager
    async def session(
        self, caller: Caller, name: str, key: str | None = None, fingerprint: bytes = b""
    ) -> AsyncIterator[Talk]:
        """Hold the session of that name, alone, until the block ends: `append` to the Talk what was answered.

        With an idempotency `key` that has made a turn already, that turn is the Talk's `replayed`, and nothing is to be
        appended. Raises Conflict (session_busy): another turn is under way and takes too long; Invalid
        (idempotency_key_reused): the key has made a turn of a request with another `fingerprint`; OverQuota.
        """
        async with self._held(caller, name) as met:
            seen = await self._database.view(partial(self._see, caller, name, key))
            if seen.session is None:
                await self._check_room(caller)
            yield Talk(seen, key, fingerprint, partial(self._keep, caller, name, met), is_apart=met == "apart")

    @asynccontextmanager
    async def _held(self, caller: Caller, name: str) -> AsyncIterator[Met]:
        waiting = Waiting(self._settings.wait_seconds)
        with closing(await self._locked(lock_name(caller, name), waiting)):
            if self._sharing is None:
                yield "together"
                return
            async with self._sharing.held(caller, name, waiting) as met:
                yield met

    async def _locked(self, session: str, waiting: Waiting) -> SessionLock:
        while (lock := self._locks.take(session)) is None:
            await waiting.once_more()
        return lock

    def _see(self, caller: Caller, name: str, key: str | None, tx: Transaction) -> Seen:
        found = sessions.find(tx, caller, name, time.time())
        if found is None:
            return Seen(None)
        by_key = None if key is None else sessions.by_key(tx, found, key)
        return Seen(found, sessions.line(tx, found, self._bounds), by_key)

    async def _check_room(self, caller: Caller) -> None:
        limit = self._settings.tenant_sessions
        if limit and (await self._database.view(lambda tx: turns.totals(tx, caller.tenant)))[0] >= limit:
            raise OverQuota(f"There are {limit} sessions, which is all that there may be.")

    async def _keep(self, caller: Caller, name: str, met: Met, row: TurnRow) -> State:
        """Keep the turn here, then tell the others. It counts as kept once it is here."""

        def work(tx: Transaction) -> bool:
            return sessions.append(tx, caller, name, row, self._bounds, time.time(), is_pending=met == "apart")

        is_next = await self._database.update(work)
        if not is_next:
            return _counted("branched")
        if self._sharing is None:
            return _counted("ok")
        if await self._sharing.tell(caller, name, row) == "together":
            is_aside = await self._database.view(lambda tx: turns.is_aside(tx, row.turn.id))
            return "branched" if is_aside else _counted("ok")
        if met == "together":
            await self._database.update(lambda tx: sessions.mark_pending(tx, row.turn.id))
        if self._retelling is not None:
            self._retelling.due()
        return _counted("degraded")


def _no_session(name: str) -> NotFound:
    return NotFound(f"There is no session '{name:.128}', or not any more.", param="session")


def _shared(remote: Remote, locks: SessionLocks, settings: Settings) -> SharedSessions:
    return SharedSessions(
        remote,
        locks.identity,
        idle_seconds=settings.idle_seconds,
        max_turns=settings.max_turns,
        max_bytes=settings.max_bytes,
    )


def _erase(caller: Caller, turn_id: str, tx: Transaction) -> tuple[SessionRow, TurnRow] | None:
    turns.erase(tx, caller, turn_id)
    return sessions.of_turn(tx, turn_id)


def _counted(state: State) -> State:
    outcome = {"ok": "kept", "degraded": "apart", "branched": "branched"}[state]
    telemetry.count(names.SESSION_TURNS, attributes={names.SESSION_OUTCOME: outcome})
    return state
