"""The door: every request under /v1 takes from its caller's limits before anything of it is read.

Behind `Authenticate`, so a request without a valid key takes nothing from anyone. The routes that also take tokens
stand in METERED; of a prompt only the length is known here. A route that has read it says what it needs with `expect`,
and what it came to with `meter` or `spend`; what it never says is settled here:

    it was refused, or failed     no tokens: no model has worked for the caller
    its client left               what was estimated: a model may have worked, and hanging up must not be a way around
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from ragagent.api import limit_headers, problems
from ragagent.engine.answering.answer import Question, Reply
from ragagent.engine.answering.recorded import Pieces
from ragagent.engine.limiting.grant import Grant, Refused
from ragagent.engine.limiting.limiter import Limiter
from ragagent.text import count_tokens
from ragagent.types import Answer, Message, Usage

# path -> whether it makes an answer: then what will be generated is reserved, and a place among the answers under way
METERED: Final = {"/v1/chat/completions": True, "/v1/responses": True, "/v1/embeddings": False}
# The tiers in which a model worked for this request, or for one that it joined: who joins pays as well, or to ask twice
# and to hang up once would be a way around.
COMPUTED: Final = ("miss", "bypass")

_BYTES_PER_TOKEN = 4
_STATE: Final = "metered"


class Limit:
    """`answer_tokens` are reserved for each answer that does not say how long it may be."""

    def __init__(self, app: ASGIApp, limiter: Limiter, answer_tokens: int) -> None:
        self._app = app
        self._limiter = limiter
        self._answer_tokens = answer_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("state", {}).get("caller")
        if scope["type"] != "http" or caller is None:
            await self._app(scope, receive, send)
            return
        try:
            is_answer = METERED.get(scope["path"]) if scope["method"] == "POST" else None
            tokens = None if is_answer is None else self._estimate(scope, is_answer)
            grant = await self._limiter.admit(caller, tokens, is_answer=bool(is_answer))
            if grant is None:
                await self._app(scope, receive, send)
            else:
                await self._metered(scope, receive, send, Metered(self._limiter, grant))
        except Refused as exc:
            response = problems.response(exc)
            response.raw_headers.extend(limit_headers.of_refusal(exc))
            await response(scope, receive, send)

    async def _metered(self, scope: Scope, receive: Receive, send: Send, metered: Metered) -> None:
        scope["state"][_STATE] = metered

        def headers() -> limit_headers.Headers:
            return limit_headers.of(metered.grant.standings)

        scope["state"][problems.HEADERS] = headers

        async def headed(message: Event) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers()]}
            await send(message)

        try:
            await self._app(scope, receive, headed)
        except Refused:
            await self._limiter.give_back(metered.grant)
            raise
        except (ClientDisconnect, asyncio.CancelledError):
            # Whoever cancels does not wait for Redis.
            self._limiter.later(asyncio.create_task(metered.abandon(), name="settle"))
            raise
        except BaseException:
            await metered.fail()
            raise
        await metered.fail()

    def _estimate(self, scope: Scope, is_answer: bool) -> int:
        length = Headers(scope=scope).get("content-length", "0")
        prompt = int(length[:20]) // _BYTES_PER_TOKEN if length.isascii() and length.isdigit() else 0
        return prompt + (self._answer_tokens if is_answer else 0)


class Metered:
    """One admitted request on its way."""

    def __init__(self, limiter: Limiter, grant: Grant) -> None:
        self._limiter = limiter
        self.grant = grant
        self.prompt_tokens = 0
        self.meter: Meter | None = None

    async def expect(self, prompt: int, answer: int) -> None:
        self.prompt_tokens = prompt
        await self._limiter.expect(self.grant, prompt + answer)

    async def settle(self, tokens: int) -> None:
        await self._limiter.settle(self.grant, tokens)

    async def fail(self) -> None:
        """Settle what its route has not settled: by what it had told."""
        if not self.grant.is_settled:
            await self.settle(self.meter.tokens if self.meter else 0)

    async def abandon(self) -> None:
        await self._limiter.settle(self.grant, self.meter.tokens if self.meter else None)


class Meter:
    """Counts what a request costs, as it comes into being: `note` each piece of its reply, the finished Answer last.

    With the Answer the request is settled, before a client can know that it is over and ask again.
    """

    def __init__(self, metered: Metered | None, reply: Reply) -> None:
        self._metered = metered
        self._is_free = reply.tier not in COMPUTED
        self._evidence = reply.evidence
        self._said: list[str] = []

    @property
    def tokens(self) -> int:
        """What it has cost so far: the prompt, what was found for it, what was said."""
        if self._metered is None or self._is_free:
            return 0
        found = sum(count_tokens(item.text) for item in self._evidence)
        return self._metered.prompt_tokens + found + count_tokens("".join(self._said))

    async def note(self, piece: str | Answer) -> None:
        if self._metered is None:
            return
        if isinstance(piece, str):
            self._said.append(piece)
        else:
            # Where the evidence did not suffice, no model was asked.
            is_free = self._is_free or piece.evidence_state == "none"
            await self._metered.settle(0 if is_free else piece.usage.total_tokens)


async def expect(request: Request, prompt: Iterable[str], max_tokens: int | None = None) -> None:
    """Reserve what the prompt and the longest answer to it may cost, where it is more than the door has estimated.

    Raises Refused, which passes through the route untouched.
    """
    metered = _metered(request)
    if metered is not None:
        await metered.expect(sum(map(count_tokens, prompt)), max_tokens or 0)


async def expect_answer(request: Request, question: Question) -> None:
    """Reserve what the question may cost, as `expect` does, with the talk before it."""
    said = (*question.history, Message("user", question.query.text))
    await expect(request, (message.content for message in said), question.max_tokens)


def metered(request: Request, reply: Reply, pieces: Pieces) -> Pieces:
    """Return the pieces of the reply, each counted before anybody hears of it."""
    return _counted(meter(request, reply), pieces)


async def _counted(meter: Meter, pieces: Pieces) -> Pieces:
    async with aclosing(pieces):
        async for piece in pieces:
            await meter.note(piece)
            yield piece


def meter(request: Request, reply: Reply) -> Meter:
    """Return what counts this request's cost. Where nothing limits the caller it does nothing."""
    metered = _metered(request)
    found = Meter(metered, reply)
    if metered is not None:
        metered.meter = found
    return found


async def spend(request: Request, usage: Usage) -> None:
    """Settle a request whose cost is known at once."""
    metered = _metered(request)
    if metered is not None:
        await metered.settle(usage.total_tokens)


def _metered(request: Request) -> Metered | None:
    found: Metered | None = request.scope["state"].get(_STATE)
    return found
