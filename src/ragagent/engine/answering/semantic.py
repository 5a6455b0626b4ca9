"""The semantic cache: the answer to a question is also the answer to one that says the same in other clothes.

Two gates. What both say must be equal word for word (`wording.py`), and the vectors of the two must have a cosine of
`semantic.min_cosine`. The first is the one that keeps wrong answers out; the second has a veto, for what stripping the
manners should not have stripped. In this order, because the first is a look-up: no vector is made before there is
something to compare.

It is never stale and never another tenant's: what it finds is a question, not an answer. The key of that question is
made anew, of the documents as they are now, and the answer comes from the tiers under that key, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragagent import names, telemetry
from ragagent.cache.keys import Key
from ragagent.cache.tiered import TieredCache
from ragagent.cache.tiers import OnEvent
from ragagent.config import Semantic as Settings
from ragagent.engine.answering.agreement import agree
from ragagent.engine.answering.trial import Trial
from ragagent.engine.answering.twins import Twins
from ragagent.engine.answering.wording import spelling, wording
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.retrieve import Retriever
from ragagent.errors import RagagentError
from ragagent.types import Answer

MAX_SHADOWS = 2  # computed at a time; a sample that finds no room is let go

KeyOf = Callable[[str], Key]  # the key of the answer, if the question had this text

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Twin:
    """A question that was answered before and says the same, and the cosine of the two."""

    question: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Match:
    """A twin, and its answer as the cache holds it."""

    twin: Twin
    value: Any


@dataclass(frozen=True, slots=True)
class SemanticStats:
    state: str
    questions: int
    hits: int
    misses: int
    samples: int
    false_share: float


class Semantic:
    """One worker's. `on_event` hears of every look-up, as that of the tiers does.

    `aclose` ends what is still computed behind the answers.
    """

    def __init__(
        self,
        cache: TieredCache,
        retriever: Retriever,
        settings: Settings,
        *,
        on_event: OnEvent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._retriever = retriever
        self._settings = settings
        self._on_event = on_event
        self._trial = Trial(settings, clock)
        self._twins = Twins(settings.namespace_questions, settings.questions)
        self._shadows: set[asyncio.Task[None]] = set()
        self._hits = self._misses = 0

    @property
    def state(self) -> str:
        return self._trial.state

    def twin(self, query: Query, key_of: KeyOf) -> str | None:
        """Return a question that was answered and says the same, None if there is none: a look-up of some 50 µs."""
        if not (self._cache.enabled and self._trial.is_on):
            return None
        said = wording(query.text)
        known = self._twins.get(key_of("").rendered, said) if said else None
        if known is None or known == query.text:  # Itself: whoever asks here has not found its answer.
            self._missed()
            return None
        return known

    async def find(self, query: Query, twin: str, key_of: KeyOf) -> Match | None:
        """Return the twin's answer, None if there is none or the cosine forbids it. Never raises an error of ours."""
        similarity = await self._similarity(query, twin)
        if similarity is None or similarity < self._settings.min_cosine:
            self._missed()
            return None
        fetched = await self._cache.get(key_of(twin))
        if fetched is None:
            self._twins.drop(key_of("").rendered, wording(query.text))  # It has expired, or was purged.
        if fetched is None or fetched.tier == "stale":
            self._missed()
            return None
        self._hits += 1
        self._note("hit")
        return Match(Twin(twin, similarity), fetched.value)

    def learn(self, query: Query, key_of: KeyOf) -> None:
        """Know from now on that this question has been answered, and the answer been stored."""
        if self._trial.is_on and (said := wording(query.text)):
            self._twins.put(key_of("").rendered, said, query.text)

    def doubt(self, query: Query, key_of: KeyOf, answer: Answer, compute: Callable[[], Awaitable[Answer]]) -> None:
        """For a share of the hits, compute the answer anew behind the one that is given, and compare."""
        if len(self._shadows) < MAX_SHADOWS and self._trial.is_sampled():
            task = asyncio.create_task(self._compare(query, key_of, answer, compute), name="semantic shadow")
            self._shadows.add(task)  # asyncio itself holds tasks weakly
            task.add_done_callback(self._shadows.discard)

    def stats(self) -> SemanticStats:
        trial = self._trial
        return SemanticStats(trial.state, len(self._twins), self._hits, self._misses, trial.samples, trial.false_share)

    async def drain(self) -> None:
        """Return when what is computed behind the answers has ended."""
        if self._shadows:
            await asyncio.wait(set(self._shadows))

    async def aclose(self) -> None:
        for task in self._shadows:
            task.cancel()
        await self.drain()

    def _missed(self) -> None:
        self._misses += 1
        self._note("miss")

    def _note(self, outcome: str) -> None:
        if self._on_event is not None:
            self._on_event("semantic", "answer", outcome)

    async def _similarity(self, query: Query, known: str) -> float | None:
        """Return the cosine of the two; None where the stores' vectors are of several models, or there are none."""
        embedder = self._retriever.embedder(query.stores)
        if embedder is None:
            return None
        try:
            vectors = [await self._retriever.embed(spelling(text), embedder) for text in (query.text, known)]
        except RagagentError as exc:
            log.info("No vector for the semantic cache: %s.", exc.code)  # What comes next meets the same, and says so.
            return None
        return float(np.dot(vectors[0], vectors[1]))

    async def _compare(
        self, query: Query, key_of: KeyOf, answer: Answer, compute: Callable[[], Awaitable[Answer]]
    ) -> None:
        namespace = key_of("").rendered
        try:
            fresh = await compute()
        except RagagentError as exc:
            log.info("A sample of the semantic cache could not be computed: %s.", exc.code)
            return
        except Exception:
            log.exception("unexpected error in a sample of the semantic cache")
            return
        if key_of("").rendered != namespace:
            return  # The documents have changed meanwhile: that they differ is right.
        agreed = agree(answer, fresh)
        telemetry.count(names.SEMANTIC_SAMPLES, attributes={names.SEMANTIC_VERDICT: "agree" if agreed else "disagree"})
        self._trial.note(agreed=agreed)
        if not agreed:
            self._twins.drop(namespace, wording(query.text))
