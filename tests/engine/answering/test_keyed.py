"""All that can change an answer is in its key; and nothing else that a caller may vary without meaning it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from engine.conftest import World
from ragagent import config
from ragagent.engine.answering.answer import Question
from ragagent.providers.extractive import Extractive
from ragagent.providers.openai import OpenAIGenerator
from ragagent.types import Caller, Comparison, Message

pytestmark = pytest.mark.anyio

TALK = (Message("user", "Hi."), Message("assistant", "Hello."))
OF_QUESTION: dict[str, Any] = {
    "history": TALK,
    "profile": "other",
    "instructions": "Be kind.",
    "max_tokens": 7,
    "temperature": 0.5,
}
OF_QUERY: dict[str, Any] = {
    "text": "Where is the tower?",
    "limit": 3,
    "filter": Comparison("eq", "year", 1889),
    "fusion": "rrf",
    "dense_weight": 0.5,
    "score_threshold": 0.5,
}


def key(world: World, question: Question, caller: Caller | None = None) -> str:
    return world.answerer._key(caller or Caller(), question).rendered


async def test_every_field_of_a_question_is_in_the_key(world: World) -> None:
    for name in ("docs", "others"):
        await world.store(name)
    question = await world.question("When was the tower built?")
    query = question.query
    others = [dataclasses.replace(question, **{name: value}) for name, value in OF_QUESTION.items()]
    queries = [dataclasses.replace(query, **{name: value}) for name, value in OF_QUERY.items()]
    queries.append(await world.query(query.text, ["docs", "others"]))
    queries.append(await world.query(query.text, ["others"]))
    others += [dataclasses.replace(question, query=one) for one in queries]
    named = {item.name for kind in (question, query) for item in dataclasses.fields(kind)}
    assert named == {*OF_QUESTION, *OF_QUERY, "query", "stores"}, "what is new has to be tried here as well"
    made = [key(world, question), *(key(world, one) for one in others), key(world, question, Caller("acme"))]
    assert len(set(made)) == len(made)


async def test_the_order_of_stores_and_who_asks_in_a_tenant_do_not_matter(world: World) -> None:
    for name in ("docs", "others"):
        await world.store(name)
    one, other = [Question(await world.query("When?", names)) for names in (["docs", "others"], ["others", "docs"])]
    assert key(world, one) == key(world, other, Caller(key_id="k", stores=frozenset(s.id for s in one.query.stores)))


async def test_every_write_and_every_publish_moves_the_key(world: World) -> None:
    await world.store()
    seen = []

    async def look() -> None:
        seen.append(key(world, await world.question("When?")))

    await look()
    document = (await world.upsert("a", "Built in 1889.")).documents[0]
    await look()
    await world.settle()
    await look()
    await world.ingest.set_attributes(Caller(), "docs", document.file_id, {"level": 1})
    await look()
    await world.upsert("a", "Built in 1889.", attributes={"level": 2})
    await look()
    await world.catalog.delete_file(Caller(), document.file_id)
    await look()
    await world.settle()
    await look()
    await world.catalog.delete_store(Caller(), "docs")
    await world.store()
    await look()
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    "settings", [{"min_evidence": 0.9}, {"min_cosine": 0.9}, {"candidates": 7}, {"ef_search": 99}, {"fusion": "rrf"}]
)
async def test_another_configuration_answers_for_itself(world: World, settings: dict[str, Any]) -> None:
    await world.store()
    question = await world.question("When?")
    before = key(world, question)
    world.retriever = world.make_retriever(**settings)
    world.answerer = world.make_answerer(**settings)
    assert key(world, question) != before


def test_a_generator_is_where_it_runs_and_what_it_does_unasked() -> None:
    settings = config.Generator(provider="openai", model="m", base_url="http://one/v1", api_key="k")
    changes: list[dict[str, Any]] = [
        {"model": "n"},
        {"base_url": "http://other/v1"},
        {"temperature": 0.2},
        {"max_tokens": 99},
    ]
    each = [OpenAIGenerator(dataclasses.replace(settings, **change)).identity for change in [{}, *changes]]
    each.append(Extractive(config.Generator(model="m")).identity)
    assert len(set(each)) == len(each)
    rotated = dataclasses.replace(settings, api_key="another", timeout_seconds=1.0, retries=0)
    assert OpenAIGenerator(rotated).identity == each[0], "a key that is rotated costs no answer"
