"""Sessions: names for the last turn of a line, moved by compare-and-set.

A name belongs to the tenant and to the reach of its key: the same name under two reaches is two sessions. What falls
out of the bounds is erased as the session grows, what nobody uses by the cleaning.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ragagent.store import turns
from ragagent.store.database import Transaction
from ragagent.store.turns import TurnRow
from ragagent.types import Caller


@dataclass(frozen=True, slots=True)
class SessionRow:
    """`position` is that of its head, the last turn. `is_pending`: other hosts have not been told of all of it.

    `is_branched`: turns were set aside, and no client has been told so yet.
    """

    id: int
    tenant: str
    reach: str
    name: str
    head: str
    position: int
    is_pending: bool
    is_branched: bool

    @property
    def caller(self) -> Caller:
        """Whoever may use it."""
        stores = None if self.reach == turns.ALL_STORES else frozenset(filter(None, self.reach.split(",")))
        return Caller(self.tenant, None, stores)


@dataclass(frozen=True, slots=True)
class Bounds:
    turns: int
    bytes: int
    idle_seconds: float


def find(tx: Transaction, caller: Caller, name: str, now: float) -> SessionRow | None:
    """Return the session of exactly this reach, unless it has expired."""
    row = tx.execute(
        "SELECT * FROM sessions WHERE tenant = :tenant AND reach = :reach AND name = :name AND expires_at > :now",
        {"name": name, "now": now, **turns.scope(caller)},
    ).fetchone()
    return None if row is None else _session(row)


def of_turn(tx: Transaction, turn_id: str) -> tuple[SessionRow, TurnRow] | None:
    """Return the session that a turn is of, and the turn in its place there, deleted or not."""
    turn = tx.execute("SELECT * FROM turns WHERE id = ?", (turn_id,)).fetchone()
    session = tx.execute("SELECT * FROM sessions WHERE id = ?", (turn["session_id"],)).fetchone() if turn else None
    return None if session is None else (_session(session), turns.unpacked(turn))


def line(tx: Transaction, session: SessionRow, bounds: Bounds) -> tuple[TurnRow, ...]:
    """Return the session's turns within the bounds, oldest first, deleted ones included: those keep a place."""
    rows = tx.execute(
        "SELECT * FROM turns WHERE session_id = ? AND NOT is_aside ORDER BY position DESC LIMIT ?",
        (session.id, bounds.turns),
    )
    found: list[TurnRow] = []
    total = 0
    for row in rows:
        total += row["bytes"]
        # A gap: what lies behind it is older than what another host still has.
        if row["position"] != session.position - len(found) or (found and total > bounds.bytes):
            break
        found.append(turns.unpacked(row))
    return tuple(reversed(found))


def by_key(tx: Transaction, session: SessionRow, key: str) -> TurnRow | None:
    """Return the turn that a request with this idempotency key has made, in the line or aside."""
    row = tx.execute("SELECT * FROM turns WHERE session_id = ? AND idempotency_key = ?", (session.id, key)).fetchone()
    return None if row is None else turns.unpacked(row)


def append(
    tx: Transaction, caller: Caller, name: str, row: TurnRow, bounds: Bounds, now: float, *, is_pending: bool = False
) -> bool:
    """Add the turn after `row.parent`, if that is still the last one; return whether it was.

    If it was not, the turn is kept aside: it can be asked for and answered to by its id, and the line goes on without.
    """
    session = _begun(tx, caller, name, row, now)
    is_next = session.position == 0 or row.parent == session.head
    turns.insert(tx, caller, row, session_id=session.id, is_aside=not is_next)
    if is_next:
        tx.execute(
            "UPDATE sessions SET head = ?, position = ?, is_pending = is_pending OR ?, is_branched = 0, expires_at = ?"
            " WHERE id = ?",
            (row.turn.id, row.position, is_pending, now + bounds.idle_seconds, session.id),
        )
        _trim(tx, session.id, bounds)
    return is_next


def adopt(
    tx: Transaction, caller: Caller, name: str, rows: Sequence[TurnRow], common: int, bounds: Bounds, now: float
) -> int:
    """Let the turns of another host follow the one at position `common`; return how many of ours stood there.

    Those are kept aside: they can be asked for and answered to by their ids.
    """
    session = _begun(tx, caller, name, rows[-1], now)
    aside = tx.execute(
        "UPDATE turns SET is_aside = 1 WHERE session_id = ? AND position > ? AND NOT is_aside", (session.id, common)
    ).rowcount
    for row in rows:
        # A try of the same request may have made a turn on either host: a retry gets the one that is in the line.
        tx.execute(
            "UPDATE turns SET idempotency_key = NULL WHERE session_id = ? AND idempotency_key = ? AND id <> ?",
            (session.id, row.key, row.turn.id),
        )
        own = tx.execute(
            "UPDATE turns SET is_aside = 0, position = ? WHERE id = ? AND session_id = ?",
            (row.position, row.turn.id, session.id),
        )
        if not own.rowcount:
            turns.insert(tx, caller, row, session_id=session.id)
    tx.execute(
        "UPDATE sessions SET head = ?, position = ?, is_pending = 0, is_branched = is_branched OR ?, expires_at = ?"
        " WHERE id = ?",
        (rows[-1].turn.id, rows[-1].position, aside > 0, now + bounds.idle_seconds, session.id),
    )
    _trim(tx, session.id, bounds)
    return aside


def blank(tx: Transaction, session: SessionRow) -> None:
    """Leave of all its turns, also of those that were set aside, only their places."""
    for row in tx.execute("SELECT id FROM turns WHERE session_id = ?", (session.id,)).fetchall():
        turns.blank(tx, row["id"])


def mark_pending(tx: Transaction, turn_id: str) -> None:
    """Note that the other hosts have yet to be told of a turn."""
    tx.execute("UPDATE sessions SET is_pending = 1 WHERE id = (SELECT session_id FROM turns WHERE id = ?)", (turn_id,))


def mark_told(tx: Transaction, session: SessionRow) -> None:
    """Note that the other hosts know of all turns of a session that `session` knows of."""
    tx.execute("UPDATE sessions SET is_pending = 0 WHERE id = ? AND head = ?", (session.id, session.head))


def pending(tx: Transaction, now: float, after: int, limit: int) -> list[SessionRow]:
    """Return sessions that other hosts have yet to be told of, in the order of their ids."""
    rows = tx.execute(
        "SELECT * FROM sessions WHERE is_pending AND id > ? AND expires_at > ? ORDER BY id LIMIT ?", (after, now, limit)
    )
    return [_session(row) for row in rows]


def _begun(tx: Transaction, caller: Caller, name: str, row: TurnRow, now: float) -> SessionRow:
    """Return the session; a new one stands at 0. One that has expired goes, with its turns, which are few."""
    found = find(tx, caller, name, now)
    if found is not None:
        return found
    scope = {"name": name, **turns.scope(caller)}
    tx.execute("DELETE FROM sessions WHERE tenant = :tenant AND reach = :reach AND name = :name", scope)
    begun = tx.execute(
        "INSERT INTO sessions (tenant, reach, name, head, position, expires_at)"
        " VALUES (:tenant, :reach, :name, :head, 0, :now + 1) RETURNING *",
        {"head": row.turn.id, "now": now, **scope},
    ).fetchone()
    return _session(begun)


def _trim(tx: Transaction, session_id: int, bounds: Bounds) -> None:
    """Erase the oldest turns beyond the bounds, and what was set aside beside them. The last turn always stays."""
    rows: Sequence[sqlite3.Row] = tx.execute(
        "SELECT position, bytes FROM turns WHERE session_id = ? AND NOT is_aside ORDER BY position DESC", (session_id,)
    ).fetchall()
    total = 0
    for count, row in enumerate(rows, start=1):
        total += row["bytes"]
        if count > 1 and (count > bounds.turns or total > bounds.bytes):
            tx.execute("DELETE FROM turns WHERE session_id = ? AND position <= ?", (session_id, row["position"]))
            return


def erase_expired(tx: Transaction, now: float, limit: int) -> int:
    """Erase at most `limit` of the sessions whose time is over, with their turns; return how many."""
    expired = "SELECT id FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
    return tx.execute(f"DELETE FROM sessions WHERE id IN ({expired})", (now, limit)).rowcount


def _session(row: sqlite3.Row) -> SessionRow:
    return SessionRow(
        row["id"],
        row["tenant"],
        row["reach"],
        row["name"],
        row["head"],
        row["position"],
        bool(row["is_pending"]),
        bool(row["is_branched"]),
    )
