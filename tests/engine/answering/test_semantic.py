"""The semantic cache in the whole engine: what is shared, what never is, and that it watches itself."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import anyio
import pytest

from engine.conftest import CALLER, World
from fakes import Scripted
from ragagent import config
from ragagent.cache.life import Life
from ragagent.engine.answering.answer import Answerer, Question, Reply, finished
from ragagent.engine.answering.semantic import Semantic
from ragagent.errors import Upstream
from ragagent.types import Answer, Caller, Message

pytestmark = pytest.mark.anyio

ASKED = "When was the bridge opened?"
TWIN = "Please tell me: when was THE bridge opened"


class Site:
    """A world that knows one bridge, and an answerer with a semantic cache."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.world = world
        self.events: list[tuple[str, str, str]] = []
        self.now = 0.0
        wanted = {"enabled": True, "min_cosine": 0.5, "shadow_share": 0.0, **settings}
        self.semantic = Semantic(
            world.cache,
            world.retriever,
            config.Semantic(**wanted),
            on_event=lambda *event: self.events.append(event),
            clock=lambda: self.now,
        )
        self.generator = world.generator = Scripted("It opened in 2000 [1].")
        self.answerer = self.make_answerer()

    def make_answerer(self, **settings: Any) -> Answerer:
        retrieval = config.Retrieval(**{"min_evidence": 0.0, **settings})
        world = self.world
        return Answerer(
            world.retriever,
            world.generator,
            world.cache,
            retrieval,
            life=Life(60.0, negative=60.0),
            semantic=self.semantic,
        )

    async def ask(self, text: str, caller: Caller = CALLER, **fields: Any) -> tuple[Reply, Answer]:
        return await self.answerer.answer(caller, await self.world.question(text, **fields))

    async def tier(self, text: str, **fields: Any) -> str:
        return (await self.ask(text, **fields))[0].tier


@pytest.fixture
async def site(world: World) -> Site:
    await world.store()
    await world.upsert("bridge", "The bridge was opened in 2000.")
    await world.settle()
    return Site(world)


async def test_a_twin_gets_the_very_answer_and_is_told_so(site: Site) -> None:
    _, first = await site.ask(ASKED)
    reply, second = await site.ask(TWIN)
    assert (reply.tier, second) == ("semantic", first)
    assert reply.twin is not None
    assert reply.twin.question == ASKED
    assert 0.5 <= reply.twin.similarity < 1
    assert len(site.generator.prompts) == 1
    assert [outcome for *_, outcome in site.events] == ["miss", "hit"]
    assert await site.tier(ASKED) == "l1", "an exact hit comes first"
    assert await site.tier(TWIN) == "semantic", "and a twin's answer is not kept twice"


async def test_streams_learn_and_find_as_well(site: Site) -> None:
    first = await finished((await site.answerer.open(CALLER, await site.world.question(ASKED))).pieces)
    reply = await site.answerer.open(CALLER, await site.world.question(TWIN))
    assert (reply.tier, await finished(reply.pieces)) == ("semantic", first)


@pytest.mark.parametrize(
    "other", ["Where was the bridge opened?", "When was the bridge not opened?", "When was the bridge closed?"]
)
async def test_another_question_is_answered_for_itself(site: Site, other: str) -> None:
    await site.ask(ASKED)
    assert await site.tier(other) == "miss"


async def test_whatever_else_an_answer_depends_on_parts_twins(site: Site) -> None:
    await site.ask(ASKED)
    query = await site.world.query(TWIN)
    for variant in (
        {"history": (Message("user", "Hi."),)},
        {"instructions": "Be brief."},
        {"max_tokens": 5},
        {"temperature": 0.7},
        {"profile": "other"},
        {"query": dataclasses.replace(query, limit=3)},
    ):
        question = dataclasses.replace(Question(query), **variant)
        assert (await site.answerer.answer(CALLER, question))[0].tier == "miss", variant
    site.answerer = site.make_answerer(min_evidence=0.1)
    assert await site.tier(f"{TWIN}?") == "miss"


async def test_the_same_talk_before_it_may_have_twins(site: Site) -> None:
    talk = (Message("user", "Hi."), Message("assistant", "Hello."))
    await site.ask(ASKED, history=talk)
    assert await site.tier(TWIN, history=talk) == "semantic"


async def test_another_tenant_has_no_part_in_it(site: Site) -> None:
    await site.ask(ASKED)
    reply, _ = await site.ask(TWIN, caller=Caller("other"))
    assert reply.tier == "miss"


async def test_a_write_ends_it(site: Site) -> None:
    await site.ask(ASKED)
    await site.world.upsert("bridge", "The bridge was opened in 2001.")
    await site.world.settle()
    assert await site.tier(TWIN) == "miss"


async def test_what_the_cache_no_longer_holds_is_not_found(site: Site) -> None:
    await site.ask(ASKED)
    await site.world.cache.purge()
    assert await site.tier(TWIN) == "miss"
    assert await site.tier(ASKED) == "semantic", "the twin is the one that was answered last"


async def test_the_cosine_has_a_veto(site: Site) -> None:
    strict = Site(site.world, min_cosine=0.99)
    await strict.ask(ASKED)
    assert await strict.tier("WHEN was the bridge opened ???") == "semantic"
    assert await strict.tier(TWIN) == "miss"


async def test_no_vector_is_made_before_there_are_two_to_compare(site: Site) -> None:
    await site.ask(ASKED)
    await site.ask("Where was the bridge opened?")
    assert site.world.embedder.batches[-2:] == [[ASKED], ["Where was the bridge opened?"]]


async def test_stores_of_several_models_stay_out(site: Site) -> None:
    await site.world.store("small")
    stores = [*await site.world.catalog.stores_named(CALLER, ["docs", "small"])]
    stores[1] = dataclasses.replace(stores[1], model="small-bag", dimension=16)
    questions = [
        Question(dataclasses.replace(await site.world.query(text), stores=tuple(stores))) for text in (ASKED, TWIN)
    ]
    site.semantic.learn(questions[0].query, site.answerer._key_of(CALLER, questions[0]))
    key_of = site.answerer._key_of(CALLER, questions[1])
    assert site.semantic.twin(questions[1].query, key_of) == ASKED
    assert await site.semantic.find(questions[1].query, ASKED, key_of) is None


async def test_an_embedder_that_fails_is_no_answer_and_no_error(site: Site) -> None:
    await site.ask(ASKED)
    question = await site.world.question(TWIN)

    def fail(_: object) -> None:
        raise Upstream("The endpoint is away.")

    site.world.embedder.check = fail
    assert await site.semantic.find(question.query, ASKED, site.answerer._key_of(CALLER, question)) is None


async def test_without_a_cache_there_is_none(site: Site) -> None:
    await site.ask(ASKED)
    site.world.cache.enabled = False
    assert await site.tier(TWIN) == "bypass"


# The trial


@pytest.fixture
async def watched(site: Site) -> Site:
    return Site(site.world, shadow_share=1.0, min_samples=2)


async def test_samples_that_agree_are_counted_behind_the_answers(watched: Site) -> None:
    await watched.ask(ASKED)
    watched.generator.gate = anyio.Event()
    with anyio.fail_after(5):
        reply, _ = await watched.ask(TWIN)  # It does not wait for its sample, which waits at the gate.
    assert reply.tier == "semantic"
    watched.generator.gate.set()
    await watched.semantic.drain()
    stats = watched.semantic.stats()
    assert (stats.hits, stats.misses, stats.samples, stats.false_share, stats.state) == (1, 1, 1, 0.0, "ok")


async def test_it_switches_itself_off_and_comes_back(watched: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for said in ("The bridge of 2000", "The bridge of 2001", "The bridge of 2002"):
            await watched.ask(f"What is {said}?")
            watched.generator.pieces = ("It is 7 [1].",)
            await watched.ask(f"Tell me: what is {said}?")
            await watched.semantic.drain()
            watched.generator.pieces = ("It opened in 2000 [1].",)
    assert watched.semantic.state.startswith("off for 60 more minutes: 2 of 2")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert await watched.tier(TWIN) == "miss"
    assert await watched.tier(ASKED) == "miss", "while it is off, nothing is learned and nothing found"
    watched.now += 3600
    assert await watched.tier("When was the bridge opened ?") == "miss"
    assert await watched.tier("when was the bridge opened") == "semantic"
    await watched.semantic.drain()


async def test_a_sample_that_differs_since_the_documents_do_is_none(watched: Site) -> None:
    await watched.ask(ASKED)
    watched.generator.gate = anyio.Event()
    await watched.ask(TWIN)
    await watched.world.upsert("bridge", "The bridge was opened in 2001.")
    await watched.world.settle()
    watched.generator.pieces = ("It opened in 2001 [1].",)
    watched.generator.gate.set()
    await watched.semantic.drain()
    assert watched.semantic.stats().samples == 0


async def test_a_sample_that_fails_says_nothing(watched: Site) -> None:
    await watched.ask(ASKED)
    watched.generator.failure = Upstream("The model is away.")
    assert await watched.tier(TWIN) == "semantic"
    await watched.semantic.drain()
    assert watched.semantic.stats().samples == 0


async def test_few_samples_are_computed_at_a_time_and_none_survives_the_end(watched: Site) -> None:
    await watched.ask(ASKED)
    watched.generator.gate = anyio.Event()
    for at in range(1, 6):
        assert await watched.tier(f"{TWIN}{'?' * at}") == "semantic"
    await asyncio.sleep(0.1)
    assert len(watched.generator.prompts) == 3, "the answer, and two samples of five"
    with anyio.fail_after(5):
        await watched.semantic.aclose()
    assert watched.semantic.stats().samples == 0
