"""Editions as requests meet them: whatever switches beneath, what they see is whole, and of one model."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent.engine import editions as reading
from ragagent.engine.publishing import cleaning, open_index
from ragagent.engine.retrieval.query import Query
from ragagent.errors import Conflict, NotFound, Upstream
from ragagent.store import cutover, edition_vectors, editions
from ragagent.store.editions import Edition
from ragagent.types import VectorStore

pytestmark = pytest.mark.anyio

SMALL = ("small-bag", 16)


async def filled(world: World, count: int = 5) -> VectorStore:
    await world.store()
    for n in range(count):
        await world.upsert(f"d{n}", f"tower {n}")
    await world.settle()
    return await world.catalog.store(CALLER, "docs")


async def row(world: World) -> VectorStore:
    return await world.catalog.store(CALLER, "docs")


async def rebuilt(world: World) -> None:
    store = await row(world)
    await world.database.update(lambda tx: editions.rebuild(tx, store))
    await world.settle()


async def beside(world: World) -> Edition:
    store = await row(world)
    found = await world.database.view(lambda tx: editions.find(tx, store.id, "next", "kept"))
    assert found is not None
    return found


async def reembedded(world: World) -> Edition:
    """Bring the store's next edition to where it could be cut over to."""
    store = await row(world)
    await world.database.update(lambda tx: editions.reembed(tx, store, *SMALL, 1.0))
    await followed(world)
    return await beside(world)


async def followed(world: World) -> None:
    """Make the vectors that the edition beside lacks, and publish it."""
    while await world.database.view(lambda tx: [e for e in editions.listing(tx) if edition_vectors.lacks_any(tx, e)]):
        await world.reembedder.turn()
    await world.settle()


async def switched(world: World) -> None:
    edition = await beside(world)
    await world.database.update(lambda tx: editions.want(tx, edition))
    await followed(world)


async def texts(world: World, **fields: Any) -> list[str]:
    return sorted(await world.search("tower", limit=50, **fields))


# Rebuilding


async def test_a_rebuilt_index_takes_the_place_of_the_old_one_which_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_index, "FILL_ROWS", 2)
    monkeypatch.setattr(cleaning, "GRACE_SECONDS", 0.0)
    world.publisher._cleaner._next_sweep = 0.0
    store = await filled(world)
    await rebuilt(world)
    after = await row(world)
    assert (after.index, after.seq) == (f"{store.id}-1", store.seq)
    assert len(await texts(world)) == 5
    for _ in range(3):
        await world.indexer.step()
    assert not (world.root / "index" / store.id).exists()
    assert await world.database.view(editions.listing) == []


async def test_the_old_index_is_searched_and_brought_up_until_the_new_one_has_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_index, "FILL_ROWS", 2)
    store = await filled(world, 9)
    await world.database.update(lambda tx: editions.rebuild(tx, store))
    steps = 0
    while (await row(world)).edition == 0:
        written = await world.upsert(f"new{steps}", f"tower new{steps}")
        if steps == 1:
            await world.ingest.remove(CALLER, "docs", ["d0"])
        await world.indexer.step()
        assert await world.ingest.visible(await row(world), written.seq, 0), "read your writes"
        assert len(await texts(world)) == 9 + steps + 1 - (steps >= 1)
        steps += 1
    assert steps > 3
    await world.settle()
    assert len(await texts(world)) == 9 + steps - 1
    with ExitStack() as pins:
        assert reading.pin(pins, world.database, world.searchers, await row(world)).rows == 9 + steps - 1


async def test_a_rebuild_that_is_cut_short_goes_on_where_its_manifest_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_index, "FILL_ROWS", 2)
    store = await filled(world, 8)
    await world.database.update(lambda tx: editions.rebuild(tx, store))
    await world.indexer.step()
    await world.indexer.step()
    half = world.searchers.seq(f"{store.id}-1")
    assert 0 < half < store.seq
    await world.restart_indexer()
    await world.settle()
    with world.searchers.pin((await row(world)).index) as searcher:
        assert (searcher.rows, searcher.seq) == (8, store.seq)
    assert len(await texts(world)) == 8


async def test_a_damaged_rebuild_is_begun_again_under_another_number(world: World) -> None:
    store = await filled(world)
    await world.database.update(lambda tx: editions.rebuild(tx, store))
    path = world.root / "index" / f"{store.id}-1"
    path.mkdir()
    (path / "MANIFEST").write_bytes(b"nothing")
    await world.settle()
    assert (await row(world)).index == f"{store.id}-2"
    assert len(await texts(world)) == 5


async def test_what_no_row_names_is_removed_at_the_start(world: World) -> None:
    store = await filled(world)
    shutil.copytree(world.root / "index" / store.id, world.root / "index" / f"{store.id}-77")
    await world.restart_indexer()
    await world.settle()
    assert [path.name for path in (world.root / "index").iterdir()] == [store.id]


async def test_a_request_whose_row_is_out_of_date_goes_on_with_the_new_one(world: World) -> None:
    store = await filled(world)
    await rebuilt(world)
    await world.publisher.close()
    shutil.rmtree(world.root / "index" / store.index)
    found = await world.retriever.retrieve(CALLER, Query("tower", (store,), 10))
    assert len(found.evidence) == 5
    with ExitStack() as pins, pytest.raises(reading.Moved):
        reading.pin(pins, world.database, world.searchers, store)
    await world.catalog.delete_store(CALLER, store.id)
    with pytest.raises(NotFound):
        await world.retriever.retrieve(CALLER, Query("tower", (store,), 10))


async def test_who_waits_for_a_write_sees_it_in_whatever_edition_shows_it(world: World) -> None:
    store = await filled(world)
    written = await world.upsert("new", "tower new")
    await rebuilt(world)
    await world.upsert("later", "tower later")
    await world.settle()
    later = (await row(world)).seq
    assert world.searchers.seq(store.index) < later
    with anyio.fail_after(5):
        assert await world.ingest.visible(store, max(written.seq, later), 3)


# Another model


async def test_a_store_moves_to_another_model_and_back(world: World) -> None:
    store = await filled(world)
    edition = await reembedded(world)
    assert (edition.state, edition.slot, edition.index) == ("next", 1, f"{store.id}-1")
    assert await row(world) == store, "nothing has changed for who searches"
    await world.upsert("both", "tower both")
    await world.settle()
    await switched(world)
    after = await row(world)
    assert (after.model, after.dimension, after.slot, after.edition) == (*SMALL, 1, 1)
    assert len(await texts(world, dense_weight=1.0)) == 6
    await world.upsert("small", "tower small")
    await world.settle()
    assert len(await texts(world, dense_weight=1.0)) == 7
    await switched(world)
    back = await row(world)
    assert (back.model, back.dimension, back.slot, back.edition) == ("bag-of-words", 32, 0, 0)
    assert len(await texts(world, dense_weight=1.0)) == 7
    assert (await beside(world)).state == "next"


async def test_vectors_and_questions_are_of_one_model_at_every_moment(world: World) -> None:
    await filled(world)
    await reembedded(world)
    await switched(world)
    world.embedder.batches.clear()
    await world.upsert("small", "tower small")
    await world.settle()
    await texts(world)
    assert world.embedder.batches == []
    with world.searchers.pin((await row(world)).index) as searcher:
        assert (searcher.model, searcher.dimension) == SMALL


async def test_a_document_that_was_taken_before_the_cutover_is_embedded_again_after_it(world: World) -> None:
    await filled(world)
    edition = await reembedded(world)
    await world.upsert("between", "tower between")
    real = world.embedder.check

    def cut_over(batch: object) -> None:
        world.embedder.check = real
        with world.database.write() as tx:
            assert cutover.switch(tx, edition, 10**9)

    world.embedder.check = cut_over
    await world.settle()
    assert len(await texts(world, dense_weight=1.0)) == 6
    with world.database.read() as tx:
        sizes = tx.execute("SELECT DISTINCT length(vector) FROM vectors_1").fetchall()
    assert [size[0] for size in sizes] == [4 * SMALL[1]]


async def test_two_stores_of_two_models_are_searched_in_one_question(world: World) -> None:
    await filled(world)
    await reembedded(world)
    await switched(world)
    await world.store("old")
    await world.upsert("o", "tower old", store="old")
    await world.settle()
    found = (await world.retrieve("tower old", ["docs", "old"], limit=20, dense_weight=1.0)).evidence
    assert {item.text for item in found} == {"tower old", *(f"tower {n}" for n in range(5))}
    assert found[0].score == 1.0
    cosines = {item.text: item.dense for item in found}
    assert cosines["tower old"] == pytest.approx(1.0), "the scores that are shown are the cosines themselves"
    assert cosines["tower 1"] is not None
    assert cosines["tower 1"] < 0.9


async def test_what_is_asked_for_too_early_waits_until_it_has_all(world: World) -> None:
    store = await filled(world)
    await world.database.update(lambda tx: editions.reembed(tx, store, *SMALL, 1.0))
    edition = await beside(world)
    await world.database.update(lambda tx: editions.want(tx, edition))
    await world.settle()
    assert (await row(world)).edition == 0
    await followed(world)
    assert (await row(world)).edition == 1


async def test_given_up_vectors_and_files_go_and_the_slot_can_be_used_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(cleaning, "ERASE_VECTORS", 2)
    world.publisher._cleaner._next_sweep = 0.0
    store = await filled(world)
    edition = await reembedded(world)
    await world.database.update(lambda tx: editions.drop(tx, edition))
    for _ in range(6):
        await world.indexer.step()
    with world.database.read() as tx:
        assert tx.execute("SELECT count(*) FROM vectors_1").fetchone()[0] == 0
        assert tx.execute("SELECT count(*) FROM vectors_0").fetchone()[0] == 5
        assert editions.listing(tx) == []
    assert [path.name for path in (world.root / "index").iterdir()] == [store.id]
    assert (await reembedded(world)).number == 2


async def test_a_deleted_store_takes_all_its_editions_with_it(world: World) -> None:
    store = await filled(world)
    await reembedded(world)
    await world.catalog.delete_store(CALLER, store.id)
    await world.settle()
    assert list((world.root / "index").iterdir()) == []
    assert await world.database.view(editions.listing) == []


async def test_without_its_embedder_an_edition_waits_and_says_why(world: World) -> None:
    await filled(world)
    await reembedded(world)
    await world.upsert("new", "tower new")
    await world.settle()
    world.other_embedder.model = "gone"
    assert await world.reembedder.turn() > 0
    assert "there is no such embedder" in ((await beside(world)).trouble or "")
    world.other_embedder.model = SMALL[0]

    def down(_: object) -> None:
        raise Upstream("Down.")

    world.other_embedder.check = down
    await world.reembedder.turn()
    assert (await beside(world)).trouble == "Down."
    world.other_embedder.check = lambda _: None
    await followed(world)
    assert (await beside(world)).trouble is None


async def test_a_store_whose_model_is_not_configured_is_refused(world: World) -> None:
    store = await filled(world)
    world.embedder.model = "newer"
    with pytest.raises(Conflict, match="ragagent index reembed"):
        world.catalog.check_space(store)
    assert await world.catalog.unserved() == ["docs"]
    with pytest.raises(Conflict):
        await world.retriever.retrieve(CALLER, Query("tower", (replace(store),), 10))
