"""`/v1/responses`: an answer as OpenAI's newer API has it, with its search as an item, that another can continue.

A response is on disk before its client hears the end of it, so that it may be continued at once, on any worker.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragagent.api import limiting, problems
from ragagent.api.asking import fields, question
from ragagent.api.event_stream import EventStream, after, begun
from ragagent.api.hangup import while_connected
from ragagent.api.replies import JSON, note_timings, read_headers
from ragagent.api.response_draft import Draft, result, status_of
from ragagent.api.response_events import events
from ragagent.api.response_input import Said, said
from ragagent.api.schemas.body import read
from ragagent.api.schemas.responses import CreateResponse
from ragagent.api.services import Services, caller, services
from ragagent.api.stored_responses import packed
from ragagent.engine.answering.answer import Question, Reply, history_of
from ragagent.errors import Invalid, NotFound, TooLarge
from ragagent.types import Answer, Caller, Message, Turn


async def create(request: Request) -> Response:
    asked = await read(request, CreateResponse)
    with problems.in_terms_of(fields(asked, "input")):
        return await _answer(request, asked)


async def _answer(request: Request, asked: CreateResponse) -> Response:
    making = await _begin(request, asked)
    if asked.stream:
        return await _stream(request, making)
    reply, answer = await while_connected(request, making.app.answerer.answer(making.who, making.question))
    note_timings(request, reply.timings)
    await limiting.meter(request, reply).note(answer)
    response = await making.conclude(reply, answer, await making.results(reply))
    return JSONResponse(response, headers=making.headers(reply))


async def _stream(request: Request, making: Making) -> Response:
    reply, first = await while_connected(request, begun(making.app.answerer.open(making.who, making.question)))
    note_timings(request, reply.timings)
    try:
        results = await while_connected(request, making.results(reply))
    except BaseException:
        await reply.pieces.aclose()  # Nobody else would: the model has begun to talk.
        raise

    async def conclude(answer: Answer) -> JSON:
        return await making.conclude(reply, answer, results)

    told = events(making.draft, limiting.metered(request, reply, after(first, reply.pieces)), results, conclude)
    return EventStream(told, reply.pieces, making.headers(reply))


async def _begin(request: Request, asked: CreateResponse) -> Making:
    """Read the input, and put before it what it continues; nothing of it is answered yet."""
    app, who = services(request), caller(request)
    mark = secrets.token_hex(24)
    spoken = said(asked.input, mark)
    _, text = history_of(spoken.messages)
    if not text.strip():
        raise Invalid("'input' holds no message of the user with any text.", param="input")
    if asked.store:
        await _admit(app, who, spoken.messages)
    # The instructions are for this response alone: those of the responses before it are not among its messages.
    instructions = [Message("system", asked.instructions)] if asked.instructions else []
    history, _ = history_of([*instructions, *await _continued(app, who, asked), *spoken.messages])
    asking = await question(request, asked, history, text, max_tokens=asked.max_output_tokens)
    await limiting.expect_answer(request, asking)
    return Making(app, who, Draft(asked, text, mark), spoken, asking)


async def _admit(app: Services, who: Caller, messages: Sequence[Message]) -> None:
    """Refuse before any work what could not be kept. Raises TooLarge, OverQuota."""
    try:
        await app.conversations.admit(who, messages)
    except TooLarge as exc:
        raise TooLarge(
            f"'input' holds more than the {app.config.session.turn_bytes} bytes that are kept of one response; with "
            "'store' false it may be longer.",
            param="input",
        ) from exc


async def _continued(app: Services, who: Caller, asked: CreateResponse) -> Sequence[Message]:
    """Return the talk that the request continues, oldest first. Raises NotFound."""
    if asked.previous_response_id is None:
        return ()
    with _previous(asked):
        turns = await app.conversations.chain(who, asked.previous_response_id)
    return [message for turn in turns for message in (*turn.messages, Message("assistant", turn.answer))]


@contextmanager
def _previous(asked: CreateResponse) -> Iterator[None]:
    """Say of a turn that is not there what it is to the client."""
    try:
        yield
    except NotFound as exc:
        raise NotFound(
            f"Previous response with id '{asked.previous_response_id:.80}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from exc


@dataclass(frozen=True, slots=True)
class Making:
    """A response that is being made, and all that is needed to bring it to its end."""

    app: Services
    who: Caller
    draft: Draft
    said: Said
    question: Question

    async def results(self, reply: Reply) -> list[JSON] | None:
        """Return what the search found, for who asked for it. An answer out of the cache has to look again."""
        if not self.draft.asked.wants_results:
            return None
        evidence = reply.evidence or (await self.app.retriever.retrieve(self.who, self.question.query)).evidence
        return [result(item) for item in evidence]

    async def conclude(self, reply: Reply, answer: Answer, results: Sequence[JSON] | None) -> JSON:
        """Return the finished response, which is kept by then: here all of them come by, whole or streamed."""
        response = self.draft.finished(answer, reply, results)
        asked = self.draft.asked
        if asked.store:
            turn = Turn(
                id=self.draft.id,
                created_at=self.draft.created_at,
                messages=self.said.messages,
                answer=answer.text,
                status=status_of(answer),
                payload=packed(response, self.said.items),
            )
            with _previous(asked):
                await self.app.conversations.add(self.who, turn, asked.previous_response_id)
        return response

    def headers(self, reply: Reply) -> dict[str, str]:
        return dict(read_headers(reply.tier, reply.generations, self.question.query.stores))


routes = [Route("/v1/responses", create, methods=["POST"])]
