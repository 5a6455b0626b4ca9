"""Damage that no search has met yet is found after the start, and made good."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.conftest import CALLER, World
from ragagent.engine.publishing import checking
from ragagent.engine.publishing.checking import Checker
from ragagent.store import editions

pytestmark = pytest.mark.anyio


async def filled(world: World) -> None:
    for name in ("docs", "other"):
        await world.store(name)
        for n in range(4):
            await world.upsert(f"d{n}", f"tower {n}", store=name)
    await world.settle()
    store = await world.catalog.store(CALLER, "docs")
    await world.database.update(lambda tx: editions.reembed(tx, store, "small-bag", 16, 1.0))
    while await world.reembedder.turn() == 0.0:
        pass
    await world.settle()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_what_is_damaged_is_rebuilt_and_the_rest_is_left_alone(world: World) -> None:
    await filled(world)
    checker = Checker(world.database, world.root / "index")
    assert await checker.check() == 0
    store = await world.catalog.store(CALLER, "docs")
    await world.publisher.close()
    for name in (store.index, f"{store.id}-1"):
        flip(world.root / "index" / name / "000001.delta" / "vectors.f32")
    assert await checker.check() == 2
    await world.settle()
    assert (await world.catalog.store(CALLER, "docs")).edition > 1
    assert (await world.catalog.store(CALLER, "other")).edition == 0
    assert await checker.check() == 0
    assert len(await world.search("tower")) == 4


async def test_a_process_that_ends_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(world)
    monkeypatch.setattr(checking, "_CHILD", "ragagent.no_such_module")
    assert await Checker(world.database, world.root / "index").check() == 0


async def test_what_was_replaced_since_it_was_looked_at_is_not_made_anew(world: World) -> None:
    await filled(world)
    store = await world.catalog.store(CALLER, "docs")
    old = editions.searched(store)
    await world.database.update(lambda tx: editions.rebuild(tx, store))
    await world.settle()
    assert not await world.database.update(lambda tx: checking._make_anew(old, tx))
    assert await world.database.view(lambda tx: editions.find(tx, store.id, "rebuild")) is None
