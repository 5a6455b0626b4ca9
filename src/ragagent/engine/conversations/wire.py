"""A turn as it goes to other hosts: JSON, bound to its session, and read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ragagent.errors import Damaged
from ragagent.remote.sessions import Element
from ragagent.store.turns import TurnRow
from ragagent.types import Message, Turn


def pack(session: str, row: TurnRow) -> Element:
    turn = row.turn
    fields = {
        "session": session,
        "created_at": turn.created_at,
        "messages": [[message.role, message.content] for message in turn.messages],
        "answer": turn.answer,
        "status": turn.status,
        "payload": turn.payload.decode(),
        "parent": row.parent,
        "key": row.key,
        "fingerprint": None if row.fingerprint is None else row.fingerprint.hex(),
        "is_deleted": row.is_deleted,
    }
    return Element(turn.id, json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def unpack(session: str, position: int, element: Element) -> TurnRow:
    """Raises Damaged: this is no turn, or one of another session that somebody put here."""
    try:
        fields = json.loads(element.body)
        if fields["session"] != session:
            raise ValueError("of another session")
        fingerprint = fields["fingerprint"]
        return TurnRow(
            _turn(element.id, fields),
            None if fields["parent"] is None else str(fields["parent"]),
            position,
            None if fields["key"] is None else str(fields["key"]),
            None if fingerprint is None else bytes.fromhex(fingerprint),
            bool(fields["is_deleted"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise Damaged(f"What Redis holds as turn {position} of a session is none.") from exc


def _turn(turn_id: str, fields: Mapping[str, Any]) -> Turn:
    if not (turn_id.startswith("resp_") and fields["status"] in ("completed", "incomplete")):
        raise ValueError("no turn")
    return Turn(
        id=turn_id,
        created_at=int(fields["created_at"]),
        messages=tuple(_message(*pair) for pair in fields["messages"]),
        answer=str(fields["answer"]),
        status=fields["status"],
        payload=str(fields["payload"]).encode(),
    )


def _message(role: Any, content: Any) -> Message:
    if role not in ("user", "assistant") or not isinstance(content, str):
        raise ValueError("no message")
    return Message(role, content)
