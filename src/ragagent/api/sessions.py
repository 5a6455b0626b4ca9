"""`x-ragagent-session`: the server remembers the talk, and the client sends only what is new.

A turn is kept when its answer is complete, before the client gets the end of it. Whoever hangs up, or gets an error,
has nothing kept, and tries again. With an `Idempotency-Key` that is safe even if the first try was kept and its reply
got lost: the retry gets the turn that is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragagent.api.replies import JSON
from ragagent.api.services import caller, services
from ragagent.engine.answering.answer import Question
from ragagent.engine.answering.recorded import pack, unpack
from ragagent.engine.conversations.talk import Talk
from ragagent.errors import Invalid
from ragagent.store.turns import new_id
from ragagent.types import Answer, Message, Turn

SESSION = "x-ragagent-session"
TURN = "x-ragagent-turn"
STATE = "x-ragagent-session-state"
KEY = "idempotency-key"
REPLAYED = "idempotent-replayed"
HEADERS = (SESSION, TURN, STATE, REPLAYED)

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Exchange:
    """What a request has to do with its session; with none, nothing: then all of this is empty and does nothing.

    `replayed` is the answer that an earlier try of the same request was given.
    """

    def __init__(self, name: str, talk: Talk | None, said: Sequence[Message], created_at: int) -> None:
        self._name = name
        self._talk = talk
        self._said = tuple(said)
        kept = talk.replayed if talk is not None else None
        self.replayed = None if kept is None else _answer(kept)
        self.turn_id = new_id() if kept is None else kept.id
        self.created_at = created_at if kept is None else kept.created_at

    def after_history(self, question: Question) -> Question:
        """Put what was said before in front of what the request itself says. Raises Invalid: it repeats the talk."""
        if self._talk is None or not self._talk.turns:
            return question
        if any(message.role == "assistant" for message in question.history):
            raise Invalid(
                f"'messages' holds answers of the assistant, and session '{self._name}' holds some already; with "
                f"'{SESSION}', send only what is new.",
                param="messages",
            )
        return dataclasses.replace(question, history=(*self._talk.history, *question.history))

    async def keep(self, answer: Answer) -> None:
        """Keep the turn; it is on disk when this returns. Raises StorageFull, Unavailable."""
        if self._talk is None or self.replayed is not None:
            return
        await self._talk.append(
            Turn(
                id=self.turn_id,
                created_at=self.created_at,
                messages=self._said,
                answer=answer.text,
                status="incomplete" if answer.finish_reason == "length" else "completed",
                payload=_payload(answer),
            )
        )

    @property
    def headers(self) -> Mapping[str, str]:
        if self._talk is None:
            return {}
        replayed = {} if self.replayed is None else {REPLAYED: "true"}
        return {SESSION: self._name, TURN: self.turn_id, STATE: self._talk.state, **replayed}

    @property
    def body(self) -> Mapping[str, Any]:
        """The same for the body: the head of a stream goes out before its turn is kept."""
        if self._talk is None:
            return {}
        return {"session": {"id": self._name, "turn": self.turn_id, "state": self._talk.state}}


@asynccontextmanager
async def exchange(request: Request, question: Question, created_at: int) -> AsyncIterator[Exchange]:
    """Hold the session that the request names until the block ends. Raises Invalid, TooLarge, Conflict, OverQuota."""
    name = request.headers.get(SESSION)
    if name is None:
        yield Exchange("", None, (), created_at)
        return
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"Header '{SESSION}' has value '{name:.80}'; it must have 1 to 128 of the characters A-Z a-z 0-9 . _ : -",
            param=SESSION,
        )
    key = request.headers.get(KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(f"Header '{KEY}' must have 1 to 255 visible ASCII characters (got '{key:.80}').", param=KEY)
    who, conversations = caller(request), services(request).conversations
    # The instructions of a request are for that request: whoever wants them to go on sends them again.
    said = [message for message in question.history if message.role != "system"]
    said.append(Message("user", question.query.text))
    await conversations.admit(who, said)
    async with conversations.session(who, name, key, await _fingerprint(request)) as talk:
        yield Exchange(name, talk, said, created_at)


async def _fingerprint(request: Request) -> bytes:
    """Return a digest of what was asked: the same key with anything else is a mistake."""
    return hashlib.sha256(request.url.path.encode() + b"\n" + await request.body()).digest()


def _payload(answer: Answer) -> bytes:
    return json.dumps({**pack(answer), "text": ""}, ensure_ascii=False, separators=(",", ":")).encode()


def _answer(turn: Turn) -> Answer:
    return unpack({**json.loads(turn.payload), "text": turn.answer})


async def show(request: Request) -> Response:
    name = request.path_params["session"]
    turns = await services(request).conversations.turns_of(caller(request), name)
    return JSONResponse({"object": "ragagent.session", "id": name, "turns": [_shown(turn) for turn in turns]})


async def delete(request: Request) -> Response:
    name = request.path_params["session"]
    await services(request).conversations.forget(caller(request), name)
    return JSONResponse({"object": "ragagent.session.deleted", "id": name, "deleted": True})


def _shown(turn: Turn) -> JSON:
    return {
        "object": "ragagent.session.turn",
        "id": turn.id,
        "created_at": turn.created_at,
        "status": turn.status,
        "messages": [{"role": message.role, "content": message.content} for message in turn.messages],
        "answer": turn.answer,
    }


routes = [
    Route("/v1/ragagent/sessions/{session}", show, methods=["GET"]),
    Route("/v1/ragagent/sessions/{session}", delete, methods=["DELETE"]),
]
