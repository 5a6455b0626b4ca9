"""From a question to an answer: gated, cited, cached, and computed once for all who ask at once."""

from __future__ import annotations

import anyio
import pytest

from engine.conftest import CALLER, World
from fakes import Scripted
from ragagent.cache.life import Life
from ragagent.engine.answering import prompt
from ragagent.engine.answering.answer import Reply, finished, history_of
from ragagent.engine.answering.recorded import pack, unpack
from ragagent.errors import Invalid, Upstream
from ragagent.types import Answer, Message, Usage

pytestmark = pytest.mark.anyio

TEXT = "The Eiffel tower was completed in 1889. It stands in Paris."
QUESTION = "When was the Eiffel tower completed?"


@pytest.fixture
async def world(world: World) -> World:
    """A world that knows one tower, and a generator that speaks of it."""
    await world.store()
    await world.attach(f"# Towers\n\n{TEXT}", "towers.md")
    await world.settle()
    say(world, "It was completed in 1889", " [1", "]. It also", " flies [9].")
    return world


def say(world: World, *pieces: str, usage: Usage | None = None, is_cut: bool = False) -> Scripted:
    world.generator = Scripted(*pieces, usage=usage, is_cut=is_cut)
    world.answerer = world.make_answerer()
    return world.generator


async def answered(world: World, text: str = QUESTION) -> Answer:
    return (await world.answerer.answer(CALLER, await world.question(text)))[1]


async def read(reply: Reply) -> tuple[str, Answer]:
    """Return what is streamed, and the Answer at its end."""
    pieces = [piece async for piece in reply.pieces]
    assert isinstance(pieces[-1], Answer)
    return "".join(piece for piece in pieces[:-1] if isinstance(piece, str)), pieces[-1]


async def opened(world: World, text: str = QUESTION) -> Reply:
    return await world.answerer.open(CALLER, await world.question(text))


async def test_a_citation_points_into_the_answer_and_into_the_parsed_text(world: World) -> None:
    answer = await answered(world)
    assert answer.text == "It was completed in 1889 [1]. It also flies."
    (citation,) = answer.citations
    source = f"# Towers\n\n{TEXT}"
    assert answer.text[citation.start_index : citation.end_index] == "It was completed in 1889"
    assert source[citation.source_start : citation.source_end] == citation.quote
    assert citation.quote == "The Eiffel tower was completed in 1889."
    assert citation.filename == "towers.md"
    assert (answer.evidence_state, answer.finish_reason, answer.model) == ("found", "stop", "scripted")


async def test_what_is_streamed_is_the_answers_text(world: World) -> None:
    reply = await opened(world)
    streamed, answer = await read(reply)
    assert streamed == answer.text
    assert [item.filename for item in reply.evidence] == ["towers.md"]
    assert list(answer.generations.values()) == [1]


async def test_the_generator_is_told_the_evidence_the_talk_and_the_instructions(world: World) -> None:
    talk = (Message("user", "Hi."), Message("assistant", "Hello."))
    question = await world.question(QUESTION, history=talk, instructions="Be kind.", max_tokens=7, temperature=0.5)
    await world.answerer.answer(CALLER, question)
    (told,) = world.generator.prompts
    assert TEXT in told.messages[-1].content
    assert told.messages[1:3] == talk
    assert "Be kind." in told.messages[0].content
    assert (told.max_tokens, told.temperature, told.language) == (7, 0.5, "en")


# Refusals


@pytest.mark.parametrize(("question", "language"), [("Who painted the Mona Lisa?", "en"), ("谁画了蒙娜丽莎？", "zh")])
async def test_without_evidence_it_refuses_in_the_questions_language(
    world: World, question: str, language: str
) -> None:
    world.answerer = world.make_answerer(min_evidence=0.42)
    answer = await answered(world, question)
    assert (answer.text, answer.evidence_state, answer.citations) == (prompt.REFUSAL[language], "none", ())  # type: ignore[index]
    assert world.generator.prompts == []
    streamed, _ = await read(await opened(world, question))
    assert streamed == answer.text


async def test_with_evidence_it_does_not_refuse(world: World) -> None:
    world.answerer = world.make_answerer(min_evidence=0.42)
    assert (await answered(world)).evidence_state == "found"


async def test_a_store_without_documents_is_refused_at_any_threshold(world: World) -> None:
    await world.store("empty")
    question = await world.question(QUESTION)
    stores = tuple(await world.catalog.stores_named(CALLER, ["empty"]))
    empty = type(question.query)(QUESTION, stores, 5)
    _, answer = await world.answerer.answer(CALLER, type(question)(empty))
    assert answer.evidence_state == "none"


# Usage and endings


async def test_the_endpoints_own_usage_counts_and_an_estimate_stands_in_for_it(world: World) -> None:
    say(world, "Yes.", usage=Usage(11, 3))
    assert (await answered(world)).usage == Usage(11, 3)
    say(world, "No more than that.")
    estimate = (await answered(world, "Is the Eiffel tower completed?")).usage
    assert estimate.completion_tokens == 5
    assert estimate.prompt_tokens > 50


async def test_an_answer_that_was_cut_says_so(world: World) -> None:
    say(world, "It was", is_cut=True)
    assert (await answered(world)).finish_reason == "length"


async def test_what_retrieval_refuses_is_refused_before_the_first_word(world: World) -> None:
    question = await world.question(" ")
    for call in (world.answerer.open, world.answerer.answer):
        with pytest.raises(Invalid, match="empty"):
            await call(CALLER, question)


async def test_a_generator_that_fails_is_not_remembered(world: World) -> None:
    generator = say(world, "It was completed in 1889 [1].")
    generator.failure = Upstream("The model endpoint broke off the connection.")
    with pytest.raises(Upstream):
        await answered(world)
    with pytest.raises(Upstream):
        await read(await opened(world))
    generator.failure = None
    assert (await answered(world)).text == "It was completed in 1889 [1]."


# The cache


async def test_a_hit_is_the_very_answer_however_it_is_asked_for(world: World) -> None:
    first = await answered(world)
    reply, second = await world.answerer.answer(CALLER, await world.question(QUESTION))
    streaming = await opened(world)
    streamed, third = await read(streaming)
    assert first == second == third
    assert (streamed, reply.tier, streaming.tier) == (first.text, "l1", "l1")
    assert streaming.generations == first.generations
    assert len(world.generator.prompts) == 1


async def test_a_streamed_answer_is_kept_once_it_is_whole(world: World) -> None:
    _, first = await read(await opened(world))
    reply, second = await world.answerer.answer(CALLER, await world.question(QUESTION))
    assert (reply.tier, second) == ("l1", first)


async def test_a_purge_while_an_answer_is_streamed_is_not_undone_by_it(world: World) -> None:
    reply = await opened(world)
    await anext(reply.pieces)
    await world.cache.purge()
    await read(reply)
    assert (await opened(world)).tier == "miss"


@pytest.mark.parametrize(
    ("cached", "seconds", "tier"), [(True, 60.0, "miss"), (True, 0.0, "bypass"), (False, 60.0, "bypass")]
)
async def test_the_tier_tells_whether_the_cache_was_asked(
    world: World, cached: bool, seconds: float, tier: str
) -> None:
    world.cache.enabled = cached
    world.answerer._life = Life(seconds)
    reply, _ = await world.answerer.answer(CALLER, await world.question(QUESTION))
    await world.cache.purge()
    streaming = await opened(world)
    assert (reply.tier, streaming.tier) == (tier, tier)
    await streaming.pieces.aclose()


async def test_whatever_may_change_an_answer_makes_it_another(world: World) -> None:
    query = await world.query(QUESTION)
    variants = [
        {"history": (Message("user", "Hi."),)},
        {"instructions": "Be brief."},
        {"max_tokens": 5},
        {"temperature": 0.7},
        {"profile": "other"},
    ]
    await answered(world)
    for variant in variants:
        reply, _ = await world.answerer.answer(CALLER, type(await world.question(QUESTION))(query, **variant))  # type: ignore[arg-type]
        assert reply.tier == "miss", variant
    for settings in ({"min_evidence": 0.1}, {"min_cosine": 0.5}):
        world.answerer = world.make_answerer(**settings)
        reply, _ = await world.answerer.answer(CALLER, await world.question(QUESTION))
        assert reply.tier == "miss", settings


async def test_a_write_to_the_store_makes_the_next_answer_anew(world: World) -> None:
    first = await answered(world)
    await world.ingest.detach(CALLER, "docs", first.citations[0].file_id)
    assert (await answered(world)).evidence_state == "none"


async def test_a_refusal_ends_when_the_answer_arrives(world: World) -> None:
    world.answerer = world.make_answerer(min_evidence=0.42)
    question = "Who painted the Mona Lisa?"
    assert (await answered(world, question)).evidence_state == "none"
    await world.upsert("mona", "Leonardo painted the Mona Lisa.")
    await world.settle()
    assert (await answered(world, question)).evidence_state == "found"


async def test_all_who_ask_at_once_get_one_answer(world: World) -> None:
    world.generator.gate = anyio.Event()
    asked = await world.question(QUESTION)  # Before the five: it waits for a thread, and they must not.
    found: list[tuple[Reply, Answer]] = []

    async def ask() -> None:
        found.append(await world.answerer.answer(CALLER, asked))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        with anyio.fail_after(10):
            await world.generator.asked.wait()
        world.generator.gate.set()
    assert len(world.generator.prompts) == 1
    assert len({answer.text for _, answer in found}) == 1
    assert {reply.tier for reply, _ in found} == {"miss"}
    assert [len(reply.evidence) for reply, _ in found].count(1) == 1, "one of them did the work"


async def test_an_answer_survives_its_packing(world: World) -> None:
    answer = await answered(world)
    assert unpack(pack(answer)) == answer


async def test_a_reply_ends_with_its_answer(world: World) -> None:
    assert await finished((await opened(world)).pieces) == await answered(world)


# The question in a talk


@pytest.mark.parametrize(
    ("roles", "history", "question"),
    [
        ("u", "", "0"),
        ("suau", "sua", "3"),
        ("ua", "", "0"),
        ("sa", "sa", ""),
        ("", "", ""),
    ],
)
def test_the_question_is_the_last_message_of_the_user(roles: str, history: str, question: str) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [Message(names[role], str(n)) for n, role in enumerate(roles)]  # type: ignore[arg-type]
    before, text = history_of(messages)
    assert "".join(message.role[0] for message in before) == history
    assert text == question
