"""Turns: what was said and answered, each after another one or none, so that they form trees.

Who may see one: callers of its tenant whose key reaches what it was answered from. A key that is bound to stores sees
the turns of keys with the same bounds, whichever key it was, so that keys can be replaced; a key of all sees all.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass

from ragagent.errors import Conflict, NotFound
from ragagent.store.database import Transaction
from ragagent.types import Caller, Message, Turn

ALL_STORES = "*"
VISIBLE = "tenant = :tenant AND (:reach = '*' OR reach = :reach)"


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A turn in its place. `position` counts from 1 in its session; None: it is of no session.

    `key` and `fingerprint` are the idempotency key of its request, and a digest of that request.
    """

    turn: Turn
    parent: str | None = None
    position: int | None = None
    key: str | None = None
    fingerprint: bytes | None = None
    is_deleted: bool = False

    @property
    def bytes(self) -> int:
        return size(self.turn)


def new_id() -> str:
    return f"resp_{secrets.token_hex(16)}"


def size(turn: Turn) -> int:
    """Return the bytes that the turn takes."""
    return len(_packed(turn.messages).encode()) + len(turn.answer.encode()) + len(turn.payload)


def reach(caller: Caller) -> str:
    return ALL_STORES if caller.stores is None else ",".join(sorted(caller.stores))


def scope(caller: Caller) -> dict[str, str]:
    """Return the parameters of VISIBLE."""
    return {"tenant": caller.tenant, "reach": reach(caller)}


def add(tx: Transaction, caller: Caller, turn: Turn, parent: str | None) -> None:
    """Keep a turn of no session. Raises NotFound (its parent), Conflict (its id is taken)."""
    if parent is not None:
        _existing(tx, caller, parent)
    insert(tx, caller, TurnRow(turn, parent), session_id=None)


def insert(tx: Transaction, caller: Caller, row: TurnRow, *, session_id: int | None, is_aside: bool = False) -> None:
    turn = row.turn
    try:
        tx.execute(
            "INSERT INTO turns (id, tenant, reach, parent, session_id, position, is_aside, messages, answer, status,"
            " payload, bytes, idempotency_key, fingerprint, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(turn.id, caller.tenant, reach(caller), row.parent, session_id, row.position, is_aside),
                *(_packed(turn.messages), turn.answer, "deleted" if row.is_deleted else turn.status, turn.payload),
                *(row.bytes, row.key, row.fingerprint, turn.created_at),
            ),
        )
    except sqlite3.IntegrityError as exc:
        raise Conflict(f"There is a turn '{turn.id}' already, or one of the same idempotency key.") from exc


def find(tx: Transaction, caller: Caller, turn_id: str) -> Turn | None:
    row = tx.execute(
        f"SELECT * FROM turns WHERE id = :id AND {VISIBLE} AND status <> 'deleted'", {"id": turn_id, **scope(caller)}
    ).fetchone()
    return None if row is None else unpacked(row).turn


def is_aside(tx: Transaction, turn_id: str) -> bool:
    """Whether another turn has taken this one's place in its session."""
    return tx.execute("SELECT 1 FROM turns WHERE id = ? AND is_aside", (turn_id,)).fetchone() is not None


def chain(tx: Transaction, caller: Caller, turn_id: str, *, max_turns: int, max_bytes: int) -> tuple[Turn, ...]:
    """Return the line that ends with this turn, oldest first: its newest part within the bounds, and itself always.

    Turns that were deleted are left out. Raises NotFound.
    """
    _existing(tx, caller, turn_id)
    rows = tx.execute(
        f"""
        WITH RECURSIVE line (id, parent, depth, total) AS (
            SELECT id, parent, 1, bytes FROM turns WHERE id = :id
            UNION ALL
            SELECT t.id, t.parent, depth + 1, total + t.bytes FROM line JOIN turns t ON t.id = line.parent
            WHERE depth < :max_turns AND total + t.bytes <= :max_bytes AND {VISIBLE}
        )
        SELECT t.* FROM line JOIN turns t USING (id) WHERE status <> 'deleted' ORDER BY depth DESC
        """,
        {"id": turn_id, "max_turns": max_turns, "max_bytes": max_bytes, **scope(caller)},
    )
    return tuple(unpacked(row).turn for row in rows)


def erase(tx: Transaction, caller: Caller, turn_id: str) -> None:
    """Erase what a turn holds. Raises NotFound.

    A row without contents stays while others may stand on it, so that the line before it and after it holds together.
    """
    _existing(tx, caller, turn_id)
    in_line = (
        "SELECT 1 FROM turns WHERE parent = :id UNION SELECT 1 FROM turns WHERE id = :id AND session_id IS NOT NULL"
    )
    if tx.execute(in_line, {"id": turn_id}).fetchone():
        blank(tx, turn_id)
    else:
        tx.execute("DELETE FROM turns WHERE id = ?", (turn_id,))


def blank(tx: Transaction, turn_id: str) -> None:
    """Leave of the turn only its place."""
    tx.execute(
        "UPDATE turns SET status = 'deleted', messages = '[]', answer = '', payload = x'', bytes = 0,"
        " idempotency_key = NULL, fingerprint = NULL WHERE id = ?",
        (turn_id,),
    )


def erase_old(tx: Transaction, before: float, limit: int) -> int:
    """Erase at most `limit` of the turns made before that time; return how many."""
    old = "SELECT rowid FROM turns WHERE created_at < ? ORDER BY created_at LIMIT ?"
    return tx.execute(f"DELETE FROM turns WHERE rowid IN ({old})", (before, limit)).rowcount


def totals(tx: Transaction, tenant: str) -> tuple[int, int]:
    """Return how many sessions a tenant has, and the bytes of all its turns."""
    row = tx.execute("SELECT sessions, bytes FROM conversation_totals WHERE tenant = ?", (tenant,)).fetchone()
    return (0, 0) if row is None else (row["sessions"], row["bytes"])


def unpacked(row: sqlite3.Row) -> TurnRow:
    is_deleted = row["status"] == "deleted"
    turn = Turn(
        id=row["id"],
        created_at=row["created_at"],
        messages=tuple(Message(role, content) for role, content in json.loads(row["messages"])),
        answer=row["answer"],
        status="completed" if is_deleted else row["status"],
        payload=row["payload"],
    )
    return TurnRow(turn, row["parent"], row["position"], row["idempotency_key"], row["fingerprint"], is_deleted)


def _existing(tx: Transaction, caller: Caller, turn_id: str) -> None:
    if find(tx, caller, turn_id) is None:
        raise NotFound(f"There is no turn '{turn_id:.80}', or not any more.", param="previous_response_id")


def _packed(messages: tuple[Message, ...]) -> str:
    return json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False, separators=(",", ":"))
