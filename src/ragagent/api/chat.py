"""`/v1/chat/completions`: an answer with citations, whole or as a stream of server-sent events.

What the official client needs of a stream: one id, one `created` (seconds), `role` in the first delta, `finish_reason`
in the last, `[DONE]` at the end. A stream that merely ends is taken for success, so an error is sent as an event.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragagent.api import limiting, problems, sessions
from ragagent.api.answers import explanation, shown_citations
from ragagent.api.asking import fields, question
from ragagent.api.event_stream import EventStream, after, begun, event
from ragagent.api.hangup import while_connected
from ragagent.api.replies import JSON, note_timings, read_headers
from ragagent.api.schemas.body import read
from ragagent.api.schemas.chat import ChatCompletion
from ragagent.api.services import caller, services
from ragagent.api.sessions import Exchange
from ragagent.engine.answering.answer import Answerer, Question, Reply, history_of, replay
from ragagent.engine.answering.recorded import Pieces
from ragagent.errors import Invalid, RagagentError
from ragagent.types import Answer, Caller

log = logging.getLogger("ragagent.api")


async def create(request: Request) -> Response:
    asked = await read(request, ChatCompletion)
    with problems.in_terms_of(fields(asked, "messages")):
        return await _answer(request, asked)


async def _answer(request: Request, asked: ChatCompletion) -> Response:
    app, who = services(request), caller(request)
    asking = await _question(request, asked)
    async with AsyncExitStack() as stack:
        talk = await stack.enter_async_context(sessions.exchange(request, asking, int(time.time())))
        asking = talk.after_history(asking)
        await limiting.expect_answer(request, asking)
        head = Head(asked.model, talk)
        if asked.stream:
            reply, first = await while_connected(request, begun(_opened(app.answerer, who, asking, talk)))
            note_timings(request, reply.timings)
            pieces = limiting.metered(request, reply, after(first, reply.pieces))
            events = _events(head, reply, pieces, talk, with_usage=asked.stream_options.include_usage)
            return EventStream(events, reply.pieces, _headers(reply, asking, talk), stack.pop_all())
        reply, answer = await while_connected(request, _finished(app.answerer, who, asking, talk))
        await limiting.meter(request, reply).note(answer)
        await talk.keep(answer)
    note_timings(request, reply.timings)
    return JSONResponse(head.completion(answer, reply), headers=_headers(reply, asking, talk))


async def _opened(answerer: Answerer, who: Caller, asking: Question, talk: Exchange) -> Reply:
    return await answerer.open(who, asking) if talk.replayed is None else replay(talk.replayed)


async def _finished(answerer: Answerer, who: Caller, asking: Question, talk: Exchange) -> tuple[Reply, Answer]:
    if talk.replayed is not None:
        return replay(talk.replayed), talk.replayed
    return await answerer.answer(who, asking)


def _headers(reply: Reply, asking: Question, talk: Exchange) -> Mapping[str, str]:
    return {**read_headers(reply.tier, reply.generations, asking.query.stores), **talk.headers}


async def _question(request: Request, asked: ChatCompletion) -> Question:
    if asked.n != 1:
        raise Invalid(f"'n' has value {asked.n}; only 1 is supported.", param="n")
    history, text = history_of([message.message(at) for at, message in enumerate(asked.messages)])
    if not text.strip():
        raise Invalid("'messages' holds no message of the user with any text.", param="messages")
    return await question(request, asked, history, text, max_tokens=asked.max_completion_tokens or asked.max_tokens)


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one completion repeats."""

    model: str
    talk: Exchange

    @property
    def id(self) -> str:
        """One for a turn, however often it is asked for."""
        return f"chatcmpl-{self.talk.turn_id.removeprefix('resp_')[:24]}"

    def completion(self, answer: Answer, reply: Reply) -> JSON:
        message = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": shown_citations(answer.citations),
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        return {
            **self._fields("chat.completion"),
            "choices": [choice],
            "usage": usage(answer),
            "ragagent": {**explanation(answer, reply), **self.talk.body},
        }

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._fields("chat.completion.chunk"), "choices": [choice], **extra})

    def usage_chunk(self, answer: Answer) -> bytes:
        return event({**self._fields("chat.completion.chunk"), "choices": [], "usage": usage(answer)})

    def _fields(self, kind: str) -> JSON:
        return {"id": self.id, "object": kind, "created": self.talk.created_at, "model": self.model}


async def _events(
    head: Head, reply: Reply, pieces: Pieces, talk: Exchange, *, with_usage: bool
) -> AsyncGenerator[bytes]:
    yield head.chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, str):
                    yield head.chunk({"content": piece})
                    continue
                await talk.keep(piece)
                last = {"annotations": shown_citations(piece.citations)}
                yield head.chunk(last, piece.finish_reason, ragagent={**explanation(piece, reply), **talk.body})
                if with_usage:
                    yield head.usage_chunk(piece)
    except RagagentError as exc:
        log.error("%s while streaming: %s", exc.code, exc.message, exc_info=exc.__cause__)
        yield event(problems.body(exc))
        return
    except Exception:
        log.exception("unexpected error while streaming")
        yield event(problems.body(RagagentError("The server made a mistake while it streamed the answer.")))
        return
    yield b"data: [DONE]\n\n"


def usage(answer: Answer) -> JSON:
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }


routes = [Route("/v1/chat/completions", create, methods=["POST"])]
