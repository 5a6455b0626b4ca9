"""A search through a filter finds the same, whichever way it goes."""

from __future__ import annotations

import pytest

from engine.conftest import World
from ragagent.engine.retrieval import filtered
from ragagent.engine.retrieval.filtered import Filtered
from ragagent.engine.retrieval.sieve import Sieve
from ragagent.index.searcher import Legs
from ragagent.store import attributes, documents
from ragagent.types import Comparison, Filter

pytestmark = pytest.mark.anyio

CANDIDATES = 5
MIB = 1024 * 1024


class Counting(Sieve):
    """A sieve that counts how often it was asked for an array."""

    asked = 0

    def admitted(self, store_id: str, tree: Filter) -> attributes.Int64:
        self.asked += 1
        return super().admitted(store_id, tree)


async def ladder(world: World, count: int = 40) -> str:
    """Texts whose scores all differ; of every four, `half` lets two through, `rare` those far down alone."""
    store = await world.store()
    for n in range(count):
        row = {"half": n % 2 == 0, "rare": n < 10, "n": n}
        await world.upsert(f"d{n:02}", "tower " * (n + 1) + f"of stone {n} " * 3, attributes=row)
    await world.settle()
    return store.id


async def search(world: World, store_id: str, sieve: Sieve, tree: Filter | None, text: str = "tower") -> Legs:
    vector = await world.retriever.embed(text, world.embedder)
    with world.searchers.pin(store_id) as searcher:
        return Filtered(world.database, sieve, CANDIDATES).search(store_id, searcher, tree, vector, [text])


async def both_ways(world: World, store_id: str, tree: Filter, text: str = "tower") -> tuple[Legs, Legs, int]:
    """Return what is found at the first meeting, at the second, and how often the first one asked for the array."""
    sieve = Counting(world.database, MIB)
    first = await search(world, store_id, sieve, tree, text)
    asked = sieve.asked
    return first, await search(world, store_id, sieve, tree, text), asked


@pytest.mark.parametrize(
    ("tree", "asked"),
    [
        (Comparison("eq", "half", True), 0),  # broad, and enough of what was found passes
        (Comparison("gte", "n", 10), 0),
        (Comparison("eq", "rare", True), 1),  # broad, and too little of it passes
        (Comparison("eq", "n", 3), 1),  # narrow
    ],
)
async def test_both_ways_find_the_same(world: World, monkeypatch: pytest.MonkeyPatch, tree: Filter, asked: int) -> None:
    monkeypatch.setattr(attributes, "BROAD", 10)
    first, second, count = await both_ways(world, await ladder(world), tree)
    assert first == second
    assert count == asked
    assert len(first.lexical) == len(first.dense) == (1 if tree == Comparison("eq", "n", 3) else CANDIDATES)


async def test_a_leg_that_has_shown_all_is_enough_however_few_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "BROAD", 10)
    monkeypatch.setattr(filtered, "WIDER", 100)
    first, second, count = await both_ways(world, await ladder(world), Comparison("eq", "half", True), "38")
    assert first.lexical == second.lexical
    assert (count, len(first.lexical)) == (0, 1)


async def test_without_a_filter_no_array_is_asked_for(world: World) -> None:
    store_id = await ladder(world, 3)
    sieve = Counting(world.database, MIB)
    assert len((await search(world, store_id, sieve, None)).lexical) == 3
    assert sieve.asked == 0


@pytest.mark.parametrize("is_known", [False, True])
async def test_attributes_that_change_are_seen_by_the_next_search(
    world: World, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setattr(attributes, "BROAD", 2)
    store_id = await ladder(world, 6)
    sieve, tree = Counting(world.database, MIB), Comparison("eq", "half", True)
    if is_known:
        for _ in range(2):
            await search(world, store_id, sieve, tree)
    before = len((await search(world, store_id, Counting(world.database, MIB), tree)).lexical)
    await world.upsert("d00", "tower of stone 0 of stone 0 of stone 0 ", attributes={"half": True})
    await world.upsert("d01", "tower " * 2 + "of stone 1 " * 3, attributes={"half": True})
    assert before == 3
    assert len((await search(world, store_id, sieve, tree)).lexical) == 4
    assert sieve.asked == (2 if is_known else 0)


async def test_both_ways_measure_by_what_is_there_while_an_index_remembers_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "BROAD", 10)
    store_id = await ladder(world)
    sieve, tree = Counting(world.database, MIB), Comparison("eq", "half", True)
    for _ in range(2):
        before = await search(world, store_id, sieve, tree)
    best = before.lexical[0][0]
    with world.database.write() as tx:
        sql = "SELECT d.file_id FROM chunks c JOIN documents d ON d.id = c.document_id WHERE c.id = ?"
        document = documents.find(tx, store_id, tx.execute(sql, (best,)).fetchone()[0])
        assert document is not None
        documents.remove(tx, document)
    first, second, asked = await both_ways(world, store_id, tree)
    assert (first.lexical[0], asked) == (before.lexical[1], 0)
    for legs in (second, await search(world, store_id, sieve, tree)):
        assert best not in {chunk_id for chunk_id, _ in (*legs.dense, *legs.lexical)}
        assert legs.lexical[0] == first.lexical[0]
