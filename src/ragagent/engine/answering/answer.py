"""From a question to an answer: cache, retrieve, gate, generate, cite.

`open` does all that can fail before the first word, so that a failure is still a status code; what it returns is then
streamed, or read to its end. Behind it an answer is made once for all who ask the same meanwhile (recorded.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from ragagent import names, telemetry
from ragagent.cache import keys
from ragagent.cache.fetched import Streaming, Tier
from ragagent.cache.flights.flight import Tell
from ragagent.cache.keys import Key
from ragagent.cache.life import Life, Nothing
from ragagent.cache.tiered import TieredCache
from ragagent.config import Retrieval as Settings
from ragagent.engine.answering import prompt, recorded
from ragagent.engine.answering.cite import Citer
from ragagent.engine.answering.gate import is_supported
from ragagent.engine.answering.recorded import Pieces
from ragagent.engine.answering.semantic import KeyOf, Semantic, Twin
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.retrieve import Retrieval, Retriever, models
from ragagent.providers.base import Generator
from ragagent.text import count_tokens, language
from ragagent.types import Answer, Caller, Evidence, Message, Prompt, Usage

Source = Tier | Literal["semantic"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request for an answer: what to retrieve, the talk before it, and how to generate."""

    query: Query
    history: tuple[Message, ...] = ()
    profile: str = "ragagent"
    instructions: str = ""
    max_tokens: int | None = None
    temperature: float | None = None

    def asked_as(self, text: str) -> Question:
        return dataclasses.replace(self, query=dataclasses.replace(self.query, text=text))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer under way: pieces of text, then the finished Answer, which is the last item."""

    tier: Source
    generations: Mapping[str, int]
    pieces: Pieces
    timings: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    twin: Twin | None = None  # the question that this was the answer to, where it was not this one


class Answerer:
    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        cache: TieredCache,
        settings: Settings,
        *,
        life: Life,
        semantic: Semantic | None = None,
    ) -> None:
        self._retriever = retriever
        self._generator = generator
        self._cache = cache
        self._settings = settings
        self._life = life
        self._semantic = semantic

    async def open(self, caller: Caller, question: Question) -> Reply:
        """Look the answer up, join it where it is under way, else make it. Returns when its first words are there.

        Raises what retrieval and the generator raise before that.
        """
        key = self._key(caller, question)
        if self._semantic is not None and not self._cache.holds(key):
            known = await self._known(self._semantic, key, caller, question)
            if known is not None:
                return known
        made: list[Retrieval] = []  # by this very call: what the cache gives may be another's

        async def compute(tell: Tell) -> dict[str, Any] | Nothing[dict[str, Any]]:
            retrieval = await self._retriever.retrieve(caller, question.query)
            made.append(retrieval)
            pieces = self._compose(question, retrieval)
            value = await recorded.record(pieces, retrieval.found.generations, tell)
            if self._semantic is not None:
                self._semantic.learn(question.query, self._key_of(caller, question))
            return value

        found = await self._cache.stream(key, compute, self._life)
        if isinstance(found, Streaming):
            reply = Reply(found.tier, found.first, recorded.follow(found))
        else:
            reply = replay(recorded.unpack(found.value), found.tier)
            if found.tier == "l2" and self._semantic is not None:  # Another worker has answered it.
                self._semantic.learn(question.query, self._key_of(caller, question))
        if made:
            reply = dataclasses.replace(reply, timings=made[0].timings, evidence=made[0].evidence)
        return reply

    async def answer(self, caller: Caller, question: Question) -> tuple[Reply, Answer]:
        """Return the finished answer, computed once for all who ask the same at the same time."""
        reply = await self.open(caller, question)
        return reply, await finished(reply.pieces)

    def _key(self, caller: Caller, question: Question) -> Key:
        query = question.query
        return keys.answer(
            caller.tenant,
            self._retriever.versions(query.stores),
            question.profile,
            models(query.stores),
            self._generator.identity,
            [(message.role, message.content) for message in (*question.history, Message("user", query.text))],
            {
                **self._retriever.params(query),
                "limit": query.limit,
                "score_threshold": query.score_threshold,
                "min_evidence": self._settings.min_evidence,
                "min_cosine": self._settings.min_cosine,
                "instructions": question.instructions,
                "max_tokens": question.max_tokens,
                "temperature": question.temperature,
            },
        )

    async def _known(self, semantic: Semantic, key: Key, caller: Caller, question: Question) -> Reply | None:
        """Return the answer to a question that says the same as this one, where this one has none.

        Looked up before there is a flight: what that comes to is kept under its question's key, and an answer is to be
        kept once.
        """
        query, key_of = question.query, self._key_of(caller, question)
        twin = semantic.twin(query, key_of)
        if twin is None:
            return None
        found = await self._cache.get(key)  # An answer of its own comes first.
        if found is not None:
            return replay(recorded.unpack(found.value), found.tier)
        match = await semantic.find(query, twin, key_of)
        if match is None:
            return None
        answer = recorded.unpack(match.value)
        semantic.doubt(query, key_of, answer, lambda: self._anew(caller, question))
        return replay(answer, "semantic", match.twin)

    def _key_of(self, caller: Caller, question: Question) -> KeyOf:
        return lambda text: self._key(caller, question.asked_as(text))

    async def _anew(self, caller: Caller, question: Question) -> Answer:
        return await finished(self._compose(question, await self._retriever.retrieve(caller, question.query)))

    async def _compose(self, question: Question, retrieval: Retrieval) -> Pieces:
        """Yield the answer's text as it is made, then the Answer."""
        settings = self._settings
        if not is_supported(question.query.text, retrieval, settings.min_evidence, settings.min_cosine):
            telemetry.count(names.ANSWERS, attributes={names.ANSWER_OUTCOME: "no_hits"})
            async for piece in recorded.replay(self._refusal(question, retrieval)):
                yield piece
            return
        built = prompt.build(
            question.query.text,
            retrieval.evidence,
            question.history,
            question.instructions,
            history_tokens=settings.history_tokens,
            max_tokens=question.max_tokens,
            temperature=question.temperature,
        )
        citer = Citer(retrieval.evidence)
        usage, reason = None, "stop"
        started = time.perf_counter()
        with telemetry.span(names.CHAT.format(model=self._generator.model), _asked(self._generator), kind="client"):
            async with aclosing(self._generator.stream(built)) as deltas:
                async for delta in deltas:
                    if text := citer.feed(delta.text):
                        yield text
                    usage, reason = delta.usage or usage, delta.finish_reason or reason
        used = usage or _estimate(built, citer.text)
        self._measure(time.perf_counter() - started, used)
        with telemetry.span(names.CITATIONS) as span:
            rest = citer.finish()
            span.set_all({names.CITATIONS_KEPT: len(citer.citations), names.CITATIONS_DROPPED: citer.dropped})
        if rest:
            yield rest
        telemetry.count(names.ANSWERS, attributes={names.ANSWER_OUTCOME: "answered"})
        yield Answer(
            text=citer.text,
            citations=tuple(citer.citations),
            evidence_state="found",
            model=self._generator.model,
            usage=used,
            finish_reason="length" if reason == "length" else "stop",
            generations=retrieval.found.generations,
        )

    def _measure(self, seconds: float, usage: Usage) -> None:
        asked = _asked(self._generator)
        telemetry.record(names.GEN_AI_DURATION, seconds, asked)
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            telemetry.record(names.GEN_AI_TOKENS, tokens, {**asked, names.GEN_AI_TOKEN_TYPE: kind})

    def _refusal(self, question: Question, retrieval: Retrieval) -> Answer:
        text = prompt.REFUSAL[language(question.query.text)]
        return Answer(
            text=text,
            citations=(),
            evidence_state="none",
            model=self._generator.model,
            usage=Usage(count_tokens(question.query.text), count_tokens(text)),
            generations=retrieval.found.generations,
        )


async def finished(pieces: Pieces) -> Answer:
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise AssertionError("a reply ends with its Answer")


def replay(answer: Answer, tier: Source = "bypass", twin: Twin | None = None) -> Reply:
    """Return the reply of an answer that was given before, and kept in that tier, or by whoever asks."""
    return Reply(tier, answer.generations, recorded.replay(answer), twin=twin)


def _asked(generator: Generator) -> dict[str, str]:
    return {names.GEN_AI_OPERATION: "chat", names.GEN_AI_REQUEST_MODEL: generator.model}


def _estimate(built: Prompt, text: str) -> Usage:
    return Usage(sum(count_tokens(message.content) for message in built.messages), count_tokens(text))


def history_of(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
    """Return the talk before the question, and the question: the last message of the user."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].role == "user":
            return tuple(messages[:position]), messages[position].content
    return tuple(messages), ""
