"""Two editions side by side."""

from __future__ import annotations

import pytest

from engine.conftest import CALLER, World
from ragagent.engine.publishing.comparing import Probe, compare, sampled
from ragagent.errors import Invalid
from ragagent.store import editions
from ragagent.store.editions import Edition

pytestmark = pytest.mark.anyio


async def two(world: World) -> tuple[Edition, Edition]:
    await world.store()
    for n in range(30):
        await world.upsert(f"d{n}", f"tower number {n} of {n % 7} hills")
    await world.settle()
    store = await world.catalog.store(CALLER, "docs")
    new = await world.database.update(lambda tx: editions.reembed(tx, store, "small-bag", 16, 1.0))
    while await world.reembedder.turn() == 0.0:
        pass
    await world.settle()
    return editions.searched(store), new


async def test_an_edition_is_wholly_like_itself_and_less_like_another(world: World) -> None:
    old, new = await two(world)
    probes = sampled(world.database, old, old, 20)
    same = compare(world.database, world.searchers, old, old, probes)
    assert (same.mean, same.worst, same.hits) == (1.0, 1.0, None)
    other = compare(world.database, world.searchers, old, new, sampled(world.database, old, new, 20))
    assert other.worst <= other.mean < 1.0
    assert other.worst_text.startswith("tower number")


async def test_a_better_model_has_more_hits(world: World) -> None:
    old, new = await two(world)
    right = (await world.embedder.embed(["tower number 7 of 0 hills"]))[0]
    small = (await world.other_embedder.embed(["hills"]))[0]
    found = compare(world.database, world.searchers, old, new, [Probe("q", right, small, wanted="d7")])
    assert found.hits is not None
    assert found.hits["old"] == {"1": 1.0, "10": 1.0}
    assert found.hits["new"]["1"] == 0.0


async def test_without_vectors_of_both_there_is_nothing_to_compare(world: World) -> None:
    await world.store()
    store = await world.catalog.store(CALLER, "docs")
    old = editions.searched(store)
    with pytest.raises(Invalid, match="nothing to compare"):
        sampled(world.database, old, old, 5)
