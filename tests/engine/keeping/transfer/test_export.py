"""An export is of one moment, whole, and of what was asked for."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from engine.conftest import World
from ragagent.config import Data
from ragagent.engine.keeping.transfer import export as exports
from ragagent.engine.keeping.transfer.export import Vectors
from ragagent.errors import NotFound

pytestmark = pytest.mark.anyio


def exported(world: World, *names: str, vectors: Vectors = "base64", out: IO[bytes] | None = None) -> list[Any]:
    held = io.BytesIO()
    exports.export(Data(dir=str(world.root)), out or held, names, vectors)
    return [json.loads(line) for line in held.getvalue().splitlines()]


def types(lines: Sequence[Any]) -> list[str]:
    return [line["type"] for line in lines]


async def test_it_says_everything_that_a_reader_needs(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "A reload drops no request.", attributes={"year": 2024})
    await world.attach(b"\xff\xfe not UTF-8 \xff", "odd.txt")
    await world.settle()
    head, owner, text, chunk, file, *_, end = exported(world)
    assert (head["type"], head["format"]) == ("export", 1)
    assert (owner["id"], owner["name"], owner["model"], owner["dimension"]) == (store.id, "docs", "bag-of-words", 32)
    assert (text["external_id"], text["text"], text["attributes"]) == (
        "a",
        "A reload drops no request.",
        {"year": 2024},
    )
    assert (text["store"], text["status"], text["chunks"]) == (store.id, "completed", 1)
    assert (chunk["ordinal"], chunk["start"], chunk["end"], chunk["text"]) == (0, 0, 26, "A reload drops no request.")
    vector = np.frombuffer(base64.b64decode(chunk["vector"]), "<f4")
    assert vector.shape == (32,)
    assert float(vector @ vector) == pytest.approx(1)
    assert base64.b64decode(file["base64"]) == b"\xff\xfe not UTF-8 \xff"
    assert (end["type"], end["stores"], end["documents"]) == ("end", 1, 2)


async def test_vectors_are_left_out_or_spelt_out(world: World) -> None:
    await world.store()
    await world.upsert("a", "A reload.")
    await world.settle()
    chunk = exported(world, vectors="none")[3]
    assert (chunk["type"], "vector" in chunk) == ("chunk", False)
    spelt = exported(world, vectors="list")[3]["vector"]
    packed = np.frombuffer(base64.b64decode(exported(world)[3]["vector"]), "<f4")
    assert np.array(spelt, "<f4").tobytes() == packed.tobytes()


async def test_stores_are_chosen_by_name_or_id(world: World) -> None:
    one, two = await world.store("one"), await world.store("two")
    assert [line["id"] for line in exported(world) if line["type"] == "store"] == [one.id, two.id]
    for name in ("two", two.id):
        assert [line["id"] for line in exported(world, name) if line["type"] == "store"] == [two.id]
    with pytest.raises(NotFound, match="no store with the name or id 'three'"):
        exported(world, "one", "three")


async def test_it_is_of_one_moment(world: World) -> None:
    """What is written while a slow reader takes it is not in it, and nobody who writes waits."""
    await world.store()
    for name in "abc":
        await world.upsert(name, f"The text {name}.")
    await world.settle()
    written: list[bytes] = []

    class Slow(io.RawIOBase):
        def write(self, data: Any) -> int:
            written.append(bytes(data))
            if len(written) == 3:
                with world.database.write() as tx:
                    tx.execute("DELETE FROM documents")
            return len(data)

    exported(world, out=Slow())  # type: ignore[arg-type]
    assert types([json.loads(line) for line in written]).count("chunk") == 3
    assert types(exported(world)) == ["export", "store", "end"]


async def test_there_must_be_a_database(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no database"):
        exports.export(Data(dir=str(tmp_path / "no")), io.BytesIO(), (), "base64")
    assert not (tmp_path / "no").exists()
