"""From a question to evidence: the same with and without a cache, whatever is written between two questions."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conftest import CALLER, World
from ragagent.engine.retrieval.query import Query
from ragagent.engine.retrieval.retrieve import Retrieval
from ragagent.errors import Invalid, Upstream
from ragagent.types import Attributes, Comparison, Compound, Filter

TOWERS: dict[str, tuple[str, Attributes]] = {
    "eiffel": ("The Eiffel tower in Paris is 330 metres tall.", {"city": "Paris", "year": 1889}),
    "tokyo": ("The Tokyo tower is 333 metres tall.", {"city": "Tokyo", "year": 1958}),
    "cats": ("Cats sleep most of the day.", {"kind": "animal"}),
    "铁塔": ("埃菲尔铁塔位于法国巴黎。", {"city": "Paris"}),
}


async def towers(world: World, name: str = "docs") -> None:
    await world.store(name)
    for external_id, (text, attributes) in TOWERS.items():
        await world.upsert(external_id, text, store=name, attributes=attributes)
    await world.settle()


def texts(*external_ids: str) -> set[str]:
    return {TOWERS[external_id][0] for external_id in external_ids}


@pytest.mark.anyio
class TestEvidence:
    async def test_the_best_stands_first_and_carries_both_legs_scores(self, world: World) -> None:
        await towers(world)
        first, *rest = (await world.retrieve("How tall is the Eiffel tower?")).evidence
        assert first.text == TOWERS["eiffel"][0]
        assert 0.0 < first.score <= 1.0
        assert first.dense is not None
        assert first.lexical is not None
        assert all(first.score >= item.score for item in rest)

    async def test_chinese_finds_chinese(self, world: World) -> None:
        await towers(world)
        assert (await world.search("铁塔在哪里？"))[0] == TOWERS["铁塔"][0]

    async def test_an_empty_store_has_no_evidence(self, world: World) -> None:
        await world.store()
        found = await world.retrieve("anything")
        assert (found.evidence, found.found.chunks) == ((), 0)
        await world.settle()
        assert await world.search("anything") == []

    async def test_no_stores_have_no_evidence(self, world: World) -> None:
        assert (await world.retriever.retrieve(CALLER, Query("anything", (), 5))).evidence == ()

    async def test_stores_are_searched_as_one(self, world: World) -> None:
        await towers(world, "a")
        await world.store("b")
        await world.upsert("x", "The Berlin tower is 368 metres tall.", store="b")
        await world.settle()
        found = await world.retrieve("tower metres tall", ["a", "b"])
        assert {item.store_id for item in found.evidence[:3]} == set(found.found.seqs)

    async def test_as_many_come_as_are_asked_for_though_the_best_were_deleted(self, world: World) -> None:
        await world.store()
        for n in range(8):
            await world.upsert(f"d{n}", f"tower {n}")
        await world.settle()
        best = [item.text for item in (await world.retrieve("tower", limit=3)).evidence]
        for text in best:
            await world.ingest.remove(CALLER, "docs", [text.replace("tower ", "d")])
        found = await world.search("tower", limit=3)
        assert len(found) == 3
        assert not set(found) & set(best)

    async def test_what_scores_below_the_threshold_is_left_out(self, world: World) -> None:
        await towers(world)
        everything = (await world.retrieve("Eiffel tower metres")).evidence
        assert everything[-1].score < 0.5
        kept = (await world.retrieve("Eiffel tower metres", score_threshold=0.5)).evidence
        assert kept == tuple(item for item in everything if item.score >= 0.5)

    async def test_the_dense_weight_of_a_query_decides_between_the_legs(self, world: World) -> None:
        await towers(world)
        for weight, leg in ((0.0, "lexical"), (1.0, "dense")):
            found = (await world.retrieve("Eiffel metres", dense_weight=weight)).evidence
            scores = [getattr(item, leg) for item in found]
            assert None not in scores
            assert scores == sorted(scores, reverse=True)

    async def test_ranks_can_be_fused_instead_of_scores(self, world: World) -> None:
        await towers(world)
        convex, ranks = [(await world.retrieve("tower", fusion=fusion)).evidence for fusion in ("convex", "rrf")]
        assert [item.score for item in convex] != [item.score for item in ranks]

    async def test_frequencies_are_those_of_the_stores_searched(self, world: World) -> None:
        await towers(world, "a")
        await towers(world, "b")
        found = (await world.retrieve("tower sleeping 铁塔", ["a", "b"])).found
        assert found.frequencies == {"tower": 4, "sleep": 2, "铁塔": 2}
        assert found.chunks == 8

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"text": " \n"}, "The query is empty"),
            ({"text": "x" * 11}, "has 11 characters; at most 10"),
            ({"stores": ("one", "two", "three")}, "3 vector stores would be searched; at most 2"),
        ],
    )
    async def test_a_query_beyond_its_bounds_is_refused(
        self, world: World, fields: dict[str, Any], message: str
    ) -> None:
        for name in ("one", "two", "three"):
            await world.store(name)
        world.retriever = world.make_retriever(max_query_chars=10, max_stores=2)
        with pytest.raises(Invalid, match=message):
            await world.retrieve(**{"text": "tower", "stores": ("one",), **fields})

    async def test_an_embedder_that_is_down_is_said_and_not_remembered(self, world: World) -> None:
        await towers(world)

        def down(_: object) -> None:
            raise Upstream("Down.")

        world.embedder.check = down
        with pytest.raises(Upstream):
            await world.search("tower")
        world.embedder.check = lambda _: None
        assert len(await world.search("tower")) >= 2


@pytest.mark.anyio
class TestFilters:
    @pytest.mark.parametrize(
        ("tree", "expected"),
        [
            (Comparison("eq", "city", "Paris"), {"eiffel", "铁塔"}),
            (Comparison("ne", "city", "Paris"), {"tokyo", "cats"}),
            (Comparison("gte", "year", 1900), {"tokyo"}),
            (Comparison("in", "city", ("Paris", "Tokyo")), {"eiffel", "tokyo", "铁塔"}),
            (Compound("and", (Comparison("eq", "city", "Paris"), Comparison("gt", "year", 0))), {"eiffel"}),
            (Comparison("eq", "city", "Rome"), set()),
        ],
    )
    async def test_only_what_the_filter_lets_through_is_found(
        self, world: World, tree: Filter, expected: set[str]
    ) -> None:
        await towers(world)
        # Asked so that every document is a hit of one leg or the other.
        found = await world.search("tower cats sleep 铁塔", filter=tree, dense_weight=0.5)
        assert set(found) == texts(*expected)

    async def test_a_key_that_nobody_carries_is_refused_with_those_that_there_are(self, world: World) -> None:
        await towers(world)
        with pytest.raises(Invalid, match="attribute 'town'; there are: 'city', 'kind', 'year'") as caught:
            await world.search("tower", filter=Comparison("eq", "town", "Paris"))
        assert (caught.value.code, caught.value.param) == ("unknown_attribute", "filters")

    async def test_a_key_need_not_stand_in_every_store_that_is_searched(self, world: World) -> None:
        await towers(world)
        await world.store("other")
        await world.upsert("x", "another tower", store="other", attributes={"lang": "en"})
        await world.settle()
        found = await world.search("tower", ["docs", "other"], filter=Comparison("eq", "city", "Tokyo"))
        assert set(found) == texts("tokyo")
        with pytest.raises(Invalid, match="'city', 'kind', 'lang', 'year'"):
            await world.search("tower", ["docs", "other"], filter=Comparison("eq", "town", "Tokyo"))

    async def test_a_store_that_is_still_empty_is_no_mistake(self, world: World) -> None:
        await world.store()
        assert await world.search("tower", filter=Comparison("eq", "city", "Paris")) == []

    async def test_a_refused_filter_is_not_remembered(self, world: World) -> None:
        await towers(world)
        tree = Comparison("eq", "town", "Rome")
        with pytest.raises(Invalid):
            await world.search("tower", filter=tree)
        await world.upsert("rome", "A tower in Rome.", attributes={"town": "Rome"})
        await world.settle()
        assert await world.search("tower", filter=tree) == ["A tower in Rome."]


@pytest.mark.anyio
class TestCache:
    async def test_the_second_look_is_answered_by_the_cache_with_the_same_evidence(self, world: World) -> None:
        await towers(world)
        first, second = await world.retrieve("tower"), await world.retrieve("tower")
        assert (first.tier, second.tier) == ("miss", "l1")
        assert second.evidence == first.evidence
        assert second.found == first.found
        assert {"embed", "search", "text"} <= set(first.timings)
        assert set(second.timings) == {"text"}

    async def test_a_query_is_embedded_once_whatever_is_asked_of_it(self, world: World) -> None:
        await towers(world)
        world.embedder.batches.clear()
        for limit in (1, 2):
            await world.search("tower", limit=limit, fusion="rrf" if limit == 2 else None)
        assert world.embedder.batches == [["tower"]]

    async def test_a_vector_from_the_cache_is_the_vector(self, world: World) -> None:
        first, second = [await world.retriever.embed("tower", world.embedder) for _ in range(2)]
        assert first.dtype == np.float32
        assert first.shape == (32,)
        assert first.tolist() == second.tolist()

    async def test_other_settings_do_not_share_what_was_found(self, world: World) -> None:
        await towers(world)
        query = await world.query("Eiffel metres")
        await world.retriever.retrieve(CALLER, query)
        # The next release, with another configuration and the same Redis.
        later = world.make_retriever(dense_weight=1.0)
        found = await later.retrieve(CALLER, query)
        assert found.tier == "miss"
        asked = await world.retriever.retrieve(CALLER, replace(query, dense_weight=1.0))
        assert asked.tier == "l1", "a setting that is asked for is the same as one that is configured"
        assert asked.evidence == found.evidence

    async def test_a_delete_is_seen_before_any_publish(self, world: World) -> None:
        await towers(world)
        assert texts("eiffel") <= set(await world.search("tower"))
        await world.ingest.remove(CALLER, "docs", ["eiffel"])
        assert not texts("eiffel") & set(await world.search("tower"))

    async def test_a_delete_is_seen_also_by_who_asks_with_what_he_knew_before(self, world: World) -> None:
        await towers(world)
        query = await world.query("tower")
        await world.retriever.retrieve(CALLER, query)
        await world.ingest.remove(CALLER, "docs", ["eiffel"])
        found = await world.retriever.retrieve(CALLER, query)
        assert found.tier == "l1"
        assert texts("eiffel").isdisjoint(item.text for item in found.evidence)


# Random interleavings: one world, asked with the cache and past it.

IDS = ("a", "b", "c")
WORDS = ("tower", "paris", "cats", "铁塔")
writes = st.one_of(
    st.tuples(st.just("upsert"), st.sampled_from(IDS), st.sampled_from(WORDS), st.integers(0, 1)),
    st.tuples(st.just("remove"), st.sampled_from(IDS)),
    st.tuples(st.just("attributes"), st.sampled_from(IDS), st.integers(0, 1)),
    st.tuples(st.just("step")),
    st.tuples(st.just("ingest")),
)
questions = st.tuples(st.just("ask"), st.sampled_from(WORDS), st.none() | st.integers(0, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(writes | questions, min_size=5, max_size=20))
def test_the_cache_changes_nothing_that_can_be_seen(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(compare, Path(directory), steps)


async def compare(root: Path, steps: list[tuple[Any, ...]]) -> None:
    async with World(root) as world:
        await world.store()
        await world.upsert("always", "tower paris cats 铁塔", attributes={"n": 0})
        await world.settle()
        for name, *arguments in steps:
            await STEPS[name](world, *arguments)
        for word in WORDS:
            await ask(world, word, None)


async def ask(world: World, word: str, n: int | None) -> None:
    tree = None if n is None else Comparison("eq", "n", n)
    query = await world.query(word, filter=tree)
    cached = [await retrieved(world, query) for _ in range(2)]
    world.cache.enabled = False
    bare = await retrieved(world, query)
    world.cache.enabled = True
    assert bare == cached[0] == cached[1]


async def retrieved(world: World, query: Query) -> object:
    try:
        found: Retrieval = await world.retriever.retrieve(CALLER, query)
    except Invalid as exc:
        return exc.code
    return found.evidence, found.found


async def upsert(world: World, external_id: str, word: str, n: int) -> None:
    await world.upsert(external_id, f"{word} {external_id}", attributes={"n": n})


async def remove(world: World, external_id: str) -> None:
    await world.ingest.remove(CALLER, "docs", [external_id])


async def change(world: World, external_id: str, n: int) -> None:
    with world.database.read() as tx:
        found = tx.execute("SELECT store_id, file_id FROM documents WHERE external_id = ?", [external_id]).fetchone()
    if found:
        await world.ingest.set_attributes(CALLER, found["store_id"], found["file_id"], {"n": n})


async def step(world: World) -> None:
    await world.indexer.step()


async def only_ingest(world: World) -> None:
    await world.indexer._ingest()


STEPS: dict[str, Callable[..., Awaitable[None]]] = {
    "upsert": upsert,
    "remove": remove,
    "attributes": change,
    "step": step,
    "ingest": only_ingest,
    "ask": ask,
}
