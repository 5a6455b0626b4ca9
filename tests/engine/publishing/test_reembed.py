"""The cursor that makes a store's next vectors: it misses none, loses none to a crash, and keeps to its share."""

from __future__ import annotations

import pytest

from engine.conftest import CALLER, World
from ragagent.engine.publishing import reembed
from ragagent.engine.publishing.reembed import Reembedder
from ragagent.store import editions
from ragagent.store.database import Transaction
from ragagent.store.editions import Edition

pytestmark = pytest.mark.anyio


async def begun(world: World, count: int, budget: float = 1.0) -> Edition:
    await world.store()
    for n in range(count):
        await world.upsert(f"d{n}", f"tower {n}")
    await world.settle()
    store = await world.catalog.store(CALLER, "docs")
    return await world.database.update(lambda tx: editions.reembed(tx, store, "small-bag", 16, budget))


async def missing(world: World) -> list[int]:
    def look(tx: Transaction) -> list[int]:
        rows = tx.execute("SELECT id FROM chunks WHERE id NOT IN (SELECT chunk_id FROM vectors_1) ORDER BY id")
        return [row[0] for row in rows]

    return await world.database.view(look)


async def test_it_goes_on_from_where_the_last_slice_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembed, "SLICE_CHUNKS", 2)
    await begun(world, 5)
    await world.reembedder.turn()
    assert len(await missing(world)) == 3
    world.start_indexer()  # Another process: it knows what the row says, and no more.
    world.other_embedder.batches.clear()
    await world.reembedder.turn()
    await world.reembedder.turn()
    assert await missing(world) == []
    assert world.other_embedder.batches == [["tower 2", "tower 3"], ["tower 4"]]
    assert await world.reembedder.turn() == reembed.IDLE_SECONDS


async def test_it_follows_what_is_written_meanwhile(world: World) -> None:
    await begun(world, 2)
    await world.reembedder.turn()
    await world.upsert("new", "tower new")
    await world.settle()
    assert len(await missing(world)) == 1
    await world.reembedder.turn()
    assert await missing(world) == []


async def test_chunks_that_are_erased_while_their_vectors_are_made_are_no_error(world: World) -> None:
    await begun(world, 2)

    def erase(_: object) -> None:
        with world.database.write() as tx:
            tx.execute("DELETE FROM chunks WHERE id = 1")

    world.other_embedder.check = erase
    await world.reembedder.turn()
    assert await missing(world) == []


async def test_vectors_of_an_edition_that_was_given_up_meanwhile_are_thrown_away(world: World) -> None:
    edition = await begun(world, 2)

    def give_up(_: object) -> None:
        with world.database.write() as tx:
            editions.drop(tx, edition)

    world.other_embedder.check = give_up
    await world.reembedder.turn()
    assert len(await missing(world)) == 2


async def test_the_rest_is_in_proportion_to_the_work(world: World) -> None:
    await begun(world, 2, budget=0.25)
    now = iter((100.0, 102.0))
    reembedder = Reembedder(world.database, world.embedders, clock=lambda: next(now))
    assert await reembedder.turn() == pytest.approx(6.0)


async def test_the_slot_of_an_edition_that_was_given_up_is_empty_before_it_is_filled_again(world: World) -> None:
    edition = await begun(world, 2)
    await world.reembedder.turn()
    await world.database.update(lambda tx: editions.drop(tx, edition))
    store = await world.catalog.store(CALLER, "docs")
    await world.database.update(lambda tx: editions.reembed(tx, store, "small-bag", 16, 1.0))
    world.other_embedder.batches.clear()
    await world.reembedder.turn()
    assert world.other_embedder.batches == []
    await world.indexer.step()
    assert len(await missing(world)) == 2
    await world.reembedder.turn()
    assert await missing(world) == []
