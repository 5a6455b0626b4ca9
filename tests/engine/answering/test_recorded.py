"""An answer under way: who made it and who follows it hear the same."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent.cache.life import Nothing
from ragagent.engine.answering import recorded
from ragagent.engine.answering.answer import Question, Reply
from ragagent.engine.answering.recorded import Pieces
from ragagent.errors import Upstream
from ragagent.providers.base import Delta
from ragagent.types import Answer, Prompt, Usage

pytestmark = pytest.mark.anyio

QUESTION = "When was the Eiffel tower completed?"
WORDS = ["It was completed", " in 1889", " [1", "]. It also", " flies [9]."]


class Talking:
    """A generator that says a word each time it may, and can be made to fail."""

    model = identity = "talking"

    def __init__(self) -> None:
        self.prompts = 0
        self.words_allowed = anyio.Semaphore(0)
        self.fails_at: int | None = None
        self.has_ended = False

    async def stream(self, prompt: Prompt) -> Any:
        self.prompts += 1
        try:
            for number, word in enumerate(WORDS):
                await self.words_allowed.acquire()
                if number == self.fails_at:
                    raise Upstream("The model endpoint broke off.")
                yield Delta(word)
            yield Delta(usage=Usage(7, 9), finish_reason="stop")
        finally:
            self.has_ended = True

    def allow(self, words: int = len(WORDS)) -> None:
        for _ in range(words):
            self.words_allowed.release()

    async def aclose(self) -> None:
        pass


@pytest.fixture
async def talking(world: World) -> Talking:
    await world.store()
    await world.attach("The Eiffel tower was completed in 1889. It stands in Paris.", "towers.md")
    await world.settle()
    world.generator = Talking()  # type: ignore[assignment]
    world.answerer = world.make_answerer()
    return world.generator  # type: ignore[return-value]


async def read(pieces: Pieces) -> tuple[str, Answer]:
    found = [piece async for piece in pieces]
    assert isinstance(found[-1], Answer)
    return "".join(piece for piece in found[:-1] if isinstance(piece, str)), found[-1]


class Listeners:
    """Those who ask the same; each is told its reply as soon as there is one."""

    def __init__(self, world: World, question: Question) -> None:
        self._world = world
        self._question = question
        self.replies: list[Reply] = []
        self.heard: list[tuple[str, Answer]] = []

    async def stream(self) -> None:
        reply = await self._world.answerer.open(CALLER, self._question)
        self.replies.append(reply)
        self.heard.append(await read(reply.pieces))

    async def whole(self) -> None:
        reply, answer = await self._world.answerer.answer(CALLER, self._question)
        self.replies.append(reply)
        self.heard.append((answer.text, answer))


async def test_streams_and_wholes_share_one_answer_whenever_they_come(world: World, talking: Talking) -> None:
    listeners = Listeners(world, await world.question(QUESTION))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listeners.stream)
            talking.allow(2)
            while not listeners.replies:  # noqa: ASYNC110  Until the first has begun to hear it.
                await anyio.sleep(0.005)
            for call in (listeners.stream, listeners.whole, listeners.stream):
                tasks.start_soon(call)
            await anyio.sleep(0.01)
            talking.allow(3)
    assert talking.prompts == 1
    assert {text for text, _ in listeners.heard} == {"It was completed in 1889 [1]. It also flies."}
    answers = [answer for _, answer in listeners.heard]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].citations[0].filename == "towers.md"
    assert {reply.tier for reply in listeners.replies} == {"miss"}
    assert [len(reply.evidence) for reply in listeners.replies].count(1) == 1, "one of them did the work"


async def test_the_first_who_hangs_up_leaves_it_to_the_others(world: World, talking: Talking) -> None:
    question = await world.question(QUESTION)
    talking.allow(2)
    with anyio.fail_after(10):
        first = await world.answerer.open(CALLER, question)
        await anext(first.pieces)
        second = await world.answerer.open(CALLER, question)
        assert isinstance(await anext(second.pieces), str)
        await first.pieces.aclose()
        talking.allow(3)
        _, answer = await read(second.pieces)
    assert answer.text == "It was completed in 1889 [1]. It also flies."
    assert talking.prompts == 1


async def test_when_the_last_has_hung_up_the_model_stops_talking_and_nothing_is_kept(
    world: World, talking: Talking
) -> None:
    question = await world.question(QUESTION)
    talking.allow(1)
    with anyio.fail_after(10):
        reply = await world.answerer.open(CALLER, question)
        await anext(reply.pieces)
        await reply.pieces.aclose()
        while not talking.has_ended:  # noqa: ASYNC110  After a grace, in another task.
            await anyio.sleep(0.01)
        talking.allow()
        assert (await world.answerer.open(CALLER, question)).tier == "miss"


async def test_a_failure_in_the_middle_is_everyones(world: World, talking: Talking) -> None:
    question = await world.question(QUESTION)
    talking.fails_at = 2
    talking.allow(2)
    with anyio.fail_after(10):
        replies = [await world.answerer.open(CALLER, question) for _ in range(2)]
        talking.allow(1)
        for reply in replies:
            with pytest.raises(Upstream):
                await read(reply.pieces)
    assert talking.prompts == 1


async def pieces(*said: str | Answer) -> Pieces:
    for piece in said:
        yield piece


def answer(text: str, **more: Any) -> Answer:
    return Answer(text, (), "found", "m", **more)


async def test_what_is_told_is_plain_and_begins_with_the_generations() -> None:
    told: list[Any] = []
    whole = await recorded.record(pieces("a", "", "b", answer("ab")), {"vs_1": 3}, told.append)
    assert told == [{"vs_1": 3}, "a", "b"]
    assert not isinstance(whole, Nothing)
    assert recorded.unpack(whole) == answer("ab")


async def test_that_there_is_no_evidence_is_remembered_as_nothing() -> None:
    refusal = Answer("No.", (), "none", "m")
    whole = await recorded.record(pieces("No.", refusal), {}, lambda piece: None)
    assert isinstance(whole, Nothing)


async def test_a_model_that_never_ends_is_broken_off() -> None:
    with pytest.raises(Upstream, match="more than 1000000 characters"):
        await recorded.record(pieces(*["x" * 300_000] * 4, answer("")), {}, lambda piece: None)
