"""The input of a response: as messages for the engine, and as items that `input_items` lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ragagent.api.replies import JSON
from ragagent.api.schemas.responses import InputItem
from ragagent.types import Message


@dataclass(frozen=True, slots=True)
class Said:
    messages: tuple[Message, ...]
    items: tuple[JSON, ...]


def said(given: str | Sequence[InputItem], mark: str) -> Said:
    """Return what the client says. A text is a message of the user. `mark` is what the ids of the items begin with.

    Raises Invalid that names the item.
    """
    if isinstance(given, str):
        given = [InputItem(role="user", content=given)]
    messages, items = [], []
    for position, item in enumerate(given):
        parts = item.parts(position)
        if parts is None:
            continue
        messages.append(Message(_role(item), "\n".join(parts)))
        items.append(
            {
                "id": f"msg_{mark}_{position}",
                "type": "message",
                "status": "completed",
                "role": item.role,
                "content": [_shown(item, part) for part in parts],
            }
        )
    return Said(tuple(messages), tuple(items))


def _role(item: InputItem) -> Literal["system", "user", "assistant"]:
    return item.role if item.role == "user" or item.role == "assistant" else "system"


def _shown(item: InputItem, text: str) -> JSON:
    if item.role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}
