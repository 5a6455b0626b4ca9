"""`/v1/chat/completions`: an answer with citations, whole or as a stream of server-sent events.

What the official client needs of a stream: one id, one `created` (seconds), `role` in the first delta, `finish_reason`
in the last, `[DONE]` at the end. A stream that merely ends is taken for success, so an error is sent as an event.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ragagent.api import problems
from ragagent.api.hangup import while_connected
from ragagent.api.models import profile
from ragagent.api.replies import JSON, freshness, note_timings, read_headers
from ragagent.api.schemas.asking import FileSearchTool
from ragagent.api.schemas.body import read
from ragagent.api.schemas.chat import ChatCompletion
from ragagent.api.schemas.search import ComparisonFilter, CompoundFilter, RankingOptions, filter_tree
from ragagent.api.services import Services, caller, services
from ragagent.api.vector_stores import chunk_name
from ragagent.engine.answering.answer import Answerer, Pieces, Question, Reply, history_of
from ragagent.engine.retrieval.query import Query
from ragagent.errors import Invalid, RagagentError
from ragagent.types import Answer, Caller, Citation, Page, VectorStore

log = logging.getLogger("ragagent.api")


async def create(request: Request) -> Response:
    asked = await read(request, ChatCompletion)
    with problems.in_terms_of(_fields(asked)):
        return await _answer(request, asked)


async def _answer(request: Request, asked: ChatCompletion) -> Response:
    app, who = services(request), caller(request)
    question, stores = await _question(app, who, asked)
    stores = await freshness(request, app, stores)
    question = dataclasses.replace(question, query=dataclasses.replace(question.query, stores=tuple(stores)))
    head = Head(asked.model)
    if asked.stream:
        return await _stream(request, app, who, asked, question, stores, head)
    reply, answer = await while_connected(request, app.answerer.answer(who, question))
    note_timings(request, reply.timings)
    return JSONResponse(head.completion(answer, reply), headers=read_headers(reply.tier, reply.generations, stores))


def _fields(asked: ChatCompletion) -> Mapping[str, str]:
    """Return where in this request the parameters of its search came from."""
    ours, tool = asked.ragagent, bool(asked.tools)
    return {
        "query": "messages",
        "filters": "ragagent.filters" if ours.filters else "tools",
        "vector_store_ids": "ragagent.stores" if ours.stores or not tool else "tools",
        "vector_store_id": "ragagent.stores" if ours.stores else "tools" if tool else "model",
    }


async def _stream(
    request: Request,
    app: Services,
    who: Caller,
    asked: ChatCompletion,
    question: Question,
    stores: Sequence[VectorStore],
    head: Head,
) -> Response:
    reply, first = await while_connected(request, _begun(app.answerer, who, question))
    note_timings(request, reply.timings)
    events = _events(head, reply, first, with_usage=asked.stream_options.include_usage)
    return EventStream(events, reply.pieces, read_headers(reply.tier, reply.generations, stores))


async def _begun(answerer: Answerer, who: Caller, question: Question) -> tuple[Reply, str | Answer]:
    """Return the reply and its first piece. Before the status line: who refuses or hangs still becomes a status."""
    reply = await answerer.open(who, question)
    return reply, await anext(reply.pieces)


class EventStream(StreamingResponse):
    """Server-sent events. When the client has gone, what they are made from is closed, and the model stops talking."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], pieces: Pieces, headers: Mapping[str, str]) -> None:
        # For proxies that would hold the stream back until it is whole.
        super().__init__(events, headers={**headers, "x-accel-buffering": "no"})
        self._events = events
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Both: the events close their pieces only once they have begun.
        async with aclosing(self._pieces), aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _question(app: Services, who: Caller, asked: ChatCompletion) -> tuple[Question, list[VectorStore]]:
    """Put together what the profile says, what a file_search tool says, and what our own field says: the last wins."""
    chosen = profile(app, asked.model)
    if asked.n != 1:
        raise Invalid(f"'n' has value {asked.n}; only 1 is supported.", param="n")
    history, text = history_of([message.message(at) for at, message in enumerate(asked.messages)])
    if not text.strip():
        raise Invalid("'messages' holds no message of the user with any text.", param="messages")
    search = _search_settings(asked)
    stores = await _stores(app, who, search.stores or chosen.stores)
    ranking = search.ranking
    query = Query(
        text=text,
        stores=tuple(stores),
        limit=search.results or chosen.results or app.config.retrieval.results,
        filter=filter_tree(search.filters),
        fusion=ranking.fusion,
        dense_weight=ranking.dense_weight,
        score_threshold=ranking.score_threshold,
    )
    question = Question(
        query=query,
        history=history,
        profile=asked.model,
        instructions=chosen.instructions,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature,
    )
    return question, stores


@dataclass(frozen=True, slots=True)
class SearchSettings:
    stores: Sequence[str] = ()
    results: int | None = None
    filters: ComparisonFilter | CompoundFilter | None = None
    ranking: RankingOptions = field(default_factory=RankingOptions)


def _search_settings(asked: ChatCompletion) -> SearchSettings:
    for tool in asked.tools:
        if tool.type != "file_search":
            raise Invalid(f"'tools': the type '{tool.type}' is not supported, only 'file_search'.", param="tools")
    tool = asked.tools[0] if asked.tools else FileSearchTool(type="file_search")
    ours = asked.ragagent
    return SearchSettings(
        stores=ours.stores or [store for tool in asked.tools for store in tool.vector_store_ids],
        results=ours.results or tool.max_num_results,
        filters=ours.filters or tool.filters,
        ranking=ours.ranking_options or tool.ranking_options,
    )


async def _stores(app: Services, who: Caller, names: Sequence[str]) -> list[VectorStore]:
    """Return the stores of those names; without names, all that the caller may read (retrieval bounds how many)."""
    if names:
        stores = await app.catalog.stores_named(who, names)
    else:
        stores = await app.catalog.stores(who, Page(limit=app.config.retrieval.max_stores + 1, order="asc"))
    for store in stores:
        app.catalog.check_space(store)
    return stores


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one completion repeats."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

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
            "ragagent": explanation(answer, reply),
        }

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._fields("chat.completion.chunk"), "choices": [choice], **extra})

    def usage_chunk(self, answer: Answer) -> bytes:
        return event({**self._fields("chat.completion.chunk"), "choices": [], "usage": usage(answer)})

    def _fields(self, kind: str) -> JSON:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


async def _events(head: Head, reply: Reply, first: str | Answer, *, with_usage: bool) -> AsyncGenerator[bytes]:
    yield head.chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(_after(first, reply.pieces)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield head.chunk({"content": piece})
                    continue
                last = {"annotations": shown_citations(piece.citations)}
                yield head.chunk(last, piece.finish_reason, ragagent=explanation(piece, reply))
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


async def _after(first: str | Answer, rest: Pieces) -> Pieces:
    yield first
    async for piece in rest:
        yield piece


def event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(answer: Answer) -> JSON:
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }


def shown_citations(citations: Sequence[Citation]) -> list[JSON]:
    """Return OpenAI's `file_citation`s; `index` is where the statement ends, the rest says what supports it."""
    return [
        {
            "type": "file_citation",
            "file_id": citation.file_id,
            "filename": citation.filename,
            "index": citation.end_index,
            "start_index": citation.start_index,
            "end_index": citation.end_index,
            "quote": citation.quote,
            "chunk_id": chunk_name(citation.chunk_id),
            "source_start": citation.source_start,
            "source_end": citation.source_end,
            "score": citation.score,
        }
        for citation in citations
    ]


def explanation(answer: Answer, reply: Reply) -> JSON:
    return {"evidence": answer.evidence_state, "cache": reply.tier, "generations": dict(answer.generations)}


routes = [Route("/v1/chat/completions", create, methods=["POST"])]
