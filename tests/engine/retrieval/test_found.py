from __future__ import annotations

import msgpack
import pytest

from engine.conftest import World
from ragagent.engine.retrieval.found import Found
from ragagent.types import Hit

pytestmark = pytest.mark.anyio


def test_what_the_cache_gives_back_is_what_it_was_given() -> None:
    found = Found(
        hits=(("vs_a", Hit(1, 0.9, 0.5, None)), ("vs_b", Hit(2, 0.4, None, 3.25))),
        seqs={"vs_a": 7, "vs_b": 9},
        generations={"vs_a": 1, "vs_b": 2},
        frequencies={"tower": 3},
        chunks=40,
    )
    assert Found.unpack(msgpack.unpackb(msgpack.packb(found.pack()))) == found


async def test_what_is_gone_leaves_its_place_to_the_next(world: World) -> None:
    store = await world.store()
    for name in "abcd":
        await world.upsert(name, f"tower {name}")
    await world.settle()
    with world.database.read() as tx:
        ids = [row[0] for row in tx.execute("SELECT id FROM chunks ORDER BY id")]
    (seq,) = {world.searchers.seq(store.id)}
    found = Found(tuple((store.id, Hit(n, 1.0 / n, None, 1.0)) for n in ids), {store.id: seq}, {}, {}, 4)
    with world.database.write() as tx:
        tx.execute("DELETE FROM chunks WHERE id IN (?, ?)", ids[:2])
    with world.database.read() as tx:
        assert [item.text for item in found.evidence(tx, 1)] == ["tower c"]
        assert [item.text for item in found.evidence(tx, 9)] == ["tower c", "tower d"]
