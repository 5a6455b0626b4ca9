"""The first store of an empty server."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.conftest import CALLER, World
from ragagent.engine import welcome
from ragagent.engine.catalog import Chunking

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hello.md"
    path.write_text("# Hello\n\nThe tower is tall.", encoding="utf-8")
    return path


async def load(world: World, *paths: Path) -> int:
    return await world.database.update(lambda tx: welcome.load(tx, paths, world.embedder, Chunking(400, 0)))


async def test_the_files_are_loaded_into_a_store_that_answers(world: World, path: Path) -> None:
    assert await load(world, path, path.with_name("missing.md")) == 1
    await world.settle()
    assert len(await world.search("tower", [welcome.STORE])) == 1


async def test_they_are_loaded_once(world: World, path: Path) -> None:
    assert [await load(world, path), await load(world, path)] == [1, 0]


async def test_a_server_that_has_a_store_gets_none(world: World, path: Path) -> None:
    await world.store()
    assert await load(world, path) == 0


async def test_a_welcome_that_was_deleted_does_not_come_back(world: World, path: Path) -> None:
    await load(world, path)
    await world.catalog.delete_store(CALLER, welcome.STORE)
    await world.settle()
    assert await load(world, path) == 0


async def test_without_files_no_store_is_made(world: World, path: Path) -> None:
    assert await load(world, path.with_name("missing.md")) == 0
    assert await load(world) == 0
    assert await load(world, path) == 1
