"""An answer as the cache keeps it, and as it is told while it is under way: plain data, there and back.

Whether an answer is made for this caller, is under way for another one, here or in another process, or is long since
kept: they all hear the same text and the same citations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ragagent.cache.fetched import Streaming
from ragagent.cache.flights.flight import Tell
from ragagent.cache.life import Nothing
from ragagent.errors import Upstream
from ragagent.types import Answer, Citation, Usage

MAX_CHARS = 1_000_000  # A client that reads slowly no longer slows the model down, so something else must end it.

Pieces = AsyncGenerator[str | Answer, None]


async def record(
    pieces: Pieces, generations: Mapping[str, int], tell: Tell
) -> dict[str, Any] | Nothing[dict[str, Any]]:
    """Tell the generations, then the text as it comes; return the whole.

    Not before there is text: until then nothing is said that an older answer could not take the place of.
    """
    said = 0
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Answer):
                whole = pack(piece)
                # No model was asked, so it costs little to find out again: it need not take the place of what does.
                return Nothing(whole) if piece.evidence_state == "none" else whole
            if not piece:
                continue
            if not said:
                tell(dict(generations))
            said += len(piece)
            if said > MAX_CHARS:
                raise Upstream(f"The model's answer has more than {MAX_CHARS} characters; it was broken off.")
            tell(piece)
    raise AssertionError("an answer ends with its Answer")


async def replay(answer: Answer) -> Pieces:
    """Yield what `record` was given, of an answer that is whole."""
    yield answer.text
    yield answer


async def follow(streaming: Streaming[dict[str, Any]]) -> Pieces:
    """Yield what `record` was given, as it comes."""
    said = 0
    async with aclosing(streaming.rest()) as texts:
        async for text in texts:
            said += len(text)
            yield text
    answer = unpack(await streaming.value())
    # What another process had not sent yet when it was done.
    if said < len(answer.text):
        yield answer.text[said:]
    yield answer


def pack(answer: Answer) -> dict[str, Any]:
    return dataclasses.asdict(answer)


def unpack(value: Mapping[str, Any]) -> Answer:
    return Answer(
        **{
            **value,
            "citations": tuple(Citation(**citation) for citation in value["citations"]),
            "usage": Usage(**value["usage"]),
        }
    )
