"""How hosts that each keep a session of their own go on with it together, through its copy in Redis.

Each keeps in SQLite all that it knows. Entering a session brings both in step: what Redis has more is kept here, what
we have more is told there. So Redis may lose everything, and is told again by whoever comes next. Where both have more,
two hosts went on without knowing of each other: the line in Redis is the one that the others follow, and the turns of
this host are kept aside, counted, and reported to the client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import anyio

from ragagent import names, telemetry
from ragagent.engine.conversations.talk import Waiting
from ragagent.engine.conversations.wire import pack, unpack
from ragagent.errors import Conflict, Damaged
from ragagent.remote.connection import NoReply
from ragagent.remote.sessions import RENEW_SECONDS, Here, SharedSessions
from ragagent.store import sessions, turns
from ragagent.store.database import Database, Transaction
from ragagent.store.sessions import Bounds, SessionRow
from ragagent.store.turns import TurnRow
from ragagent.types import Caller

Met = Literal["together", "apart", "busy"]
TRIES = 3  # of telling Redis: each fails only where another host was quicker

log = logging.getLogger("ragagent.conversations")


def lock_name(caller: Caller, name: str) -> str:
    """Return what names a session on all hosts."""
    return "\0".join((caller.tenant, turns.reach(caller), name))


class Sharing:
    def __init__(self, database: Database, shared: SharedSessions, bounds: Bounds) -> None:
        self._database = database
        self._shared = shared
        self._bounds = bounds

    @asynccontextmanager
    async def held(self, caller: Caller, name: str, waiting: Waiting) -> AsyncIterator[Met]:
        """Hold the session on all hosts until the block ends, in step with them; "apart": only here, Redis is away.

        Raises Conflict (session_busy).
        """
        token = self._shared.token()
        while (met := await self.meet(caller, name, token)) == "busy":
            await waiting.once_more()
        if met == "apart":
            yield met
            return
        renewing = asyncio.create_task(self._renew(lock_name(caller, name), token), name="session lease")
        try:
            yield met
        finally:
            renewing.cancel()
            with anyio.CancelScope(shield=True):  # Left behind, it would hold up other hosts.
                await self._shared.leave(lock_name(caller, name), token)

    async def _renew(self, session: str, token: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._shared.renew(session, token)

    async def meet(self, caller: Caller, name: str, token: str = "") -> Met:
        """Bring this host's session and the others' in step, and with a `token` hold it on all hosts.

        "apart": Redis does not answer, and this host goes on by itself. Whoever calls this holds the session's lock.
        """
        session = lock_name(caller, name)
        for _ in range(TRIES):
            ours, line = await self._database.view(partial(self._ours, caller, name))
            position, head = (ours.position, ours.head) if ours else (0, "")
            entered = await self._shared.enter(session, token, position, head)
            if isinstance(entered, NoReply):
                return "apart"
            if entered == "busy":
                return "busy"
            try:
                in_step = await self._in_step(caller, name, ours, line, entered)
            except (Damaged, Conflict) as exc:
                log.warning("What Redis holds of a session is dropped: %s", type(exc).__name__)
                await self._shared.drop(session)
                continue
            if in_step:
                return "together"
        return "apart"

    async def tell(self, caller: Caller, name: str, row: TurnRow) -> Met:
        """Tell the other hosts of the turn that this host has just kept."""
        session = lock_name(caller, name)
        appended = await self._shared.append(session, _base(row), row.parent or "", [pack(session, row)])
        if isinstance(appended, NoReply):
            return "apart"
        return "together" if appended == "kept" else await self.meet(caller, name)

    async def tell_again(self, caller: Caller, name: str) -> Met:
        """Tell what could not be told. Whoever calls this holds the session's lock."""
        token = self._shared.token()
        met = await self.meet(caller, name, token)
        if met == "together":
            await self._shared.leave(lock_name(caller, name), token)
        return met

    async def blank(self, session: SessionRow, *rows: TurnRow) -> None:
        """Have the other hosts erase what these turns held, as soon as they next enter their session."""
        shared = lock_name(session.caller, session.name)
        for row in rows:
            await self._shared.blank(shared, row.position or 0, pack(shared, row))

    def _ours(self, caller: Caller, name: str, tx: Transaction) -> tuple[SessionRow | None, tuple[TurnRow, ...]]:
        found = sessions.find(tx, caller, name, time.time())
        return found, sessions.line(tx, found, self._bounds) if found else ()

    async def _in_step(
        self,
        caller: Caller,
        name: str,
        ours: SessionRow | None,
        line: Sequence[TurnRow],
        entered: Here | Literal["absent"],
    ) -> bool:
        """Return whether both know the same now. If not, a third was quicker, or Redis has gone: look again."""
        if entered == "absent":
            return ours is None or await self._told(ours, line)
        session = lock_name(caller, name)
        theirs = [unpack(session, entered.first + at, element) for at, element in enumerate(entered.elements)]
        gone = [row.turn.id for row in line if row.turn.id in entered.deleted and not row.is_deleted]
        if ours is not None and gone:
            await self._database.update(partial(_blank, gone))
        common = _common(ours, line, entered.first, theirs)
        behind = [row for row in theirs if (row.position or 0) > common]
        if behind:
            await self._adopt(caller, name, behind, common)
            return True
        ahead = [row for row in line if (row.position or 0) > common]
        return ours is None or await self._told(ours, ahead)

    async def _adopt(self, caller: Caller, name: str, rows: Sequence[TurnRow], common: int) -> None:
        def work(tx: Transaction) -> int:
            return sessions.adopt(tx, caller, name, rows, common, self._bounds, time.time())

        if aside := await self._database.update(work):
            telemetry.count(names.SESSION_TURNS, aside, {names.SESSION_OUTCOME: "branched"})
            log.warning(
                "Two hosts had gone on with a session by themselves: %d turns of this one are set aside.", aside
            )

    async def _told(self, ours: SessionRow, rows: Sequence[TurnRow]) -> bool:
        """Tell Redis these last turns of ours."""
        if rows:
            session = lock_name(ours.caller, ours.name)
            packed = [pack(session, row) for row in rows]
            # Whole or not: where Redis has the session, the turns only go after the one that they follow.
            base, head = _base(rows[0]), rows[0].parent or ""
            if await self._shared.append(session, base, head, packed, is_whole=True) != "kept":
                return False
        if ours.is_pending:
            await self._database.update(lambda tx: sessions.mark_told(tx, ours))
        return True


def _base(row: TurnRow) -> int:
    return (row.position or 1) - 1


def _common(ours: SessionRow | None, line: Sequence[TurnRow], first: int, theirs: Sequence[TurnRow]) -> int:
    """Return the position of the last turn that both know; 0: none."""
    if ours is None:
        return 0
    if first > ours.position:  # What follows our last turn, or all that is left of what followed it some time ago.
        return ours.position
    known = {row.position: row.turn.id for row in line}
    return max((row.position or 0 for row in theirs if known.get(row.position) == row.turn.id), default=0)


def _blank(turn_ids: Sequence[str], tx: Transaction) -> None:
    for turn_id in turn_ids:
        turns.blank(tx, turn_id)
