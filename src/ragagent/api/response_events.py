"""A response as the events of OpenAI's stream, numbered, from `response.created` to what became of it.

The last event says how it ended, so there is no `[DONE]`: this API's clients wait for none. A stream that merely ended
would be taken for success, so a failure is an event as well.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from ragagent.api.answers import shown_citations
from ragagent.api.event_stream import event
from ragagent.api.replies import JSON
from ragagent.api.response_draft import Draft, output_text
from ragagent.engine.answering.recorded import Pieces
from ragagent.errors import RagagentError
from ragagent.types import Answer

log = logging.getLogger("ragagent.api")

Conclude = Callable[[Answer], Awaitable[JSON]]


async def events(
    draft: Draft, pieces: Pieces, results: Sequence[JSON] | None, conclude: Conclude
) -> AsyncGenerator[bytes]:
    """Yield the events. `conclude` makes the finished response of the answer, and keeps it before it is told."""
    say = _Numbered()
    for stage in ("created", "in_progress"):
        yield say(f"response.{stage}", response=draft.shown("in_progress"))
    for told in _search(say, draft, results):
        yield told
    try:
        async with aclosing(_message(say, draft, pieces)) as message:
            async for piece in message:
                if isinstance(piece, bytes):
                    yield piece
                    continue
                response = await conclude(piece)
                yield say(f"response.{response['status']}", response=response)
    except RagagentError as exc:
        log.error("%s while streaming: %s", exc.code, exc.message, exc_info=exc.__cause__)
        yield say("response.failed", response=draft.failed(exc))
    except Exception:
        log.exception("unexpected error while streaming")
        mistake = RagagentError("The server made a mistake while it streamed the answer.")
        yield say("response.failed", response=draft.failed(mistake))


def _search(say: _Numbered, draft: Draft, results: Sequence[JSON] | None) -> list[bytes]:
    """Return the events of the search. It is over when they are sent: what can fail in it is still a status."""
    return [
        say("response.output_item.added", output_index=0, item=draft.search("in_progress")),
        *(
            say(f"response.file_search_call.{stage}", output_index=0, item_id=draft.search_id)
            for stage in ("in_progress", "searching", "completed")
        ),
        say("response.output_item.done", output_index=0, item=draft.search("completed", results)),
    ]


async def _message(say: _Numbered, draft: Draft, pieces: Pieces) -> AsyncGenerator[bytes | Answer]:
    """Yield the events of the message, then the Answer that it holds."""
    item = {"output_index": 1, "item_id": draft.message_id}
    part = {**item, "content_index": 0}
    yield say("response.output_item.added", output_index=1, item=draft.message("in_progress"))
    yield say("response.content_part.added", **part, part=output_text())
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, str):
                yield say("response.output_text.delta", **part, delta=piece, logprobs=[])
                continue
            for at, citation in enumerate(shown_citations(piece.citations)):
                yield say("response.output_text.annotation.added", **part, annotation_index=at, annotation=citation)
            yield say("response.output_text.done", **part, text=piece.text, logprobs=[])
            yield say("response.content_part.done", **part, part=output_text(piece))
            yield say("response.output_item.done", output_index=1, item=draft.told(piece))
            yield piece


class _Numbered:
    """Gives each event its number."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, kind: str, **fields: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return f"event: {kind}\n".encode() + event({"type": kind, "sequence_number": number, **fields})
