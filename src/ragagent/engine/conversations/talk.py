"""A talk: one session while one request holds it, with what was said before and a place for what is said now."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio

from ragagent import names, telemetry
from ragagent.errors import Conflict, Invalid
from ragagent.store.sessions import SessionRow
from ragagent.store.turns import TurnRow
from ragagent.types import Message, Turn

State = Literal["ok", "degraded", "branched"]

FIRST_POLL_SECONDS = 0.005
MAX_POLL_SECONDS = 0.05


class Waiting:
    """Asking again until a time is over: neither kind of lease can wake who waits for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._delay = FIRST_POLL_SECONDS

    async def once_more(self) -> None:
        """Wait a moment. Raises Conflict (session_busy) when the time is over."""
        if time.monotonic() >= self._deadline:
            telemetry.count(names.SESSION_TURNS, attributes={names.SESSION_OUTCOME: "busy"})
            raise Conflict(
                f"Another turn of this session is under way; this one waited {self._seconds:g} s for it.",
                code="session_busy",
                retry_after=1,
            )
        await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, MAX_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as a request finds it; None: there is none of that name yet."""

    session: SessionRow | None
    line: tuple[TurnRow, ...] = ()
    by_key: TurnRow | None = None


class Talk:
    """What a request may read of its session, and `append`.

    `turns` is what was said before, oldest first, and `history` the same as messages. `replayed` is the turn that an
    earlier try of the same request has made. `state` says how the session fares: "ok"; "degraded", this host goes on by
    itself for the moment; "branched", turns were set aside since the client last heard, because two hosts that did not
    know of each other had gone on with the session.
    """

    def __init__(
        self,
        seen: Seen,
        key: str | None,
        fingerprint: bytes,
        keep: Callable[[TurnRow], Awaitable[State]],
        *,
        is_apart: bool = False,
    ) -> None:
        self.replayed = _replayed(seen.by_key, key, fingerprint)
        self.turns = tuple(row.turn for row in seen.line if not row.is_deleted)
        self.state: State = "degraded" if is_apart else "ok"
        self._head, self._position = None, 0
        if seen.session is not None:
            self._head, self._position = seen.session.head, seen.session.position
            self.state = "branched" if seen.session.is_branched else self.state
        self._key = key
        self._fingerprint = fingerprint
        self._keep = keep

    @property
    def history(self) -> tuple[Message, ...]:
        return history(self.turns)

    async def append(self, turn: Turn) -> None:
        """Keep the turn as the session's next one; it is on disk when this returns. `state` may have changed.

        Once for each Talk. Raises StorageFull, Unavailable; then nothing was kept.
        """
        row = TurnRow(turn, self._head, self._position + 1, self._key, self._fingerprint if self._key else None)
        with anyio.CancelScope(shield=True):  # What has been answered is kept, whether or not the client still listens.
            state = await self._keep(row)
        if state != "ok" or self.state == "degraded":  # What was set aside before is still to be reported.
            self.state = state


def history(turns: tuple[Turn, ...]) -> tuple[Message, ...]:
    """Return the messages of these turns, each turn's answer last."""
    return tuple(message for turn in turns for message in (*turn.messages, Message("assistant", turn.answer)))


def _replayed(found: TurnRow | None, key: str | None, fingerprint: bytes) -> Turn | None:
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise Invalid(
            f"The idempotency key '{key}' has made a turn of this session already, for another request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    telemetry.count(names.SESSION_TURNS, attributes={names.SESSION_OUTCOME: "replayed"})
    return found.turn
