"""`ragagent index` on a data directory, with an indexer of this process that does what is ordered."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from click.testing import Result

from engine.conftest import CALLER, World
from ragagent.cli import edition
from ragagent.store import editions

pytestmark = pytest.mark.anyio

Run = Callable[..., Result]

CONFIG = """
[data]
dir = "{root}"
[embedder]
model = "bag-of-words"
dimension = 32
[embedders.small]
model = "small-bag"
dimension = 16
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as opened:
        await opened.store()
        for n in range(6):
            await opened.upsert(f"d{n}", f"tower number {n}")
        await opened.settle()
        (tmp_path / "ragagent.toml").write_text(CONFIG.format(root=tmp_path))
        yield opened


@asynccontextmanager
async def indexing(world: World) -> AsyncIterator[None]:
    async def work() -> None:
        while True:
            await world.indexer.step()
            await world.reembedder.turn()
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        yield
        tasks.cancel_scope.cancel()


class Index:
    """The command line, in a thread, on the world's directory."""

    def __init__(self, run: Run, root: Path) -> None:
        self._run = run
        self._root = root

    async def result(self, *arguments: str | Path) -> Result:
        line = ("index", *arguments, "--config", self._root / "ragagent.toml")
        return await anyio.to_thread.run_sync(lambda: self._run(*line))

    async def __call__(self, *arguments: str | Path) -> Any:
        result = await self.result(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    async def refused(self, *arguments: str | Path) -> str:
        result = await self.result(*arguments)
        assert result.exit_code == 1, result.output
        return result.stderr

    async def states(self) -> list[tuple[str, str]]:
        return [(each["state"], each["model"]) for each in (await self("ls"))["data"]]


@pytest.fixture
def index(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(edition, "POLL_SECONDS", 0.01)
    return Index(run, tmp_path)


async def test_a_store_moves_to_another_model_is_compared_and_goes_back(world: World, index: Index) -> None:
    async with indexing(world):
        begun = await index("reembed", "docs", "--model", "small-bag", "--budget", "1")
        assert [(each["state"], each["progress"], each["rows"]) for each in begun["data"]] == [
            ("searched", 1.0, 6),
            ("next", 1.0, 6),
        ]
        compared = await index("compare", "docs", "--sample", "5")
        assert 0.0 <= compared["overlap"]["worst"] <= compared["overlap"]["mean"] <= 1.0
        assert (compared["old"], compared["new"], compared["hits"]) == ("bag-of-words", "small-bag", None)
        assert "abandon it first" in await index.refused("reembed", "docs", "--model", "small-bag")
        assert "nothing kept" in await index.refused("rollback", "docs")
        await index("cutover", "docs")
        assert await index.states() == [("searched", "small-bag"), ("kept", "bag-of-words")]
        await index("rollback", "docs")
        assert await index.states() == [("searched", "bag-of-words"), ("next", "small-bag")]
        await index("cutover", "docs")
        await index("retire", "docs")
        assert "no next model" in await index.refused("cutover", "docs")
    store = await world.catalog.store(CALLER, "docs")
    assert (store.model, store.dimension) == ("small-bag", 16)
    assert len(await world.search("tower", dense_weight=1.0)) == 6


async def test_an_index_is_rebuilt(world: World, index: Index) -> None:
    async with indexing(world):
        await index("rebuild", "docs")
    (listed, spent) = (await index("ls"))["data"]
    assert (listed["state"], listed["index"].endswith("-1"), listed["rows"]) == ("searched", True, 6)
    assert spent["state"] == "spent"


async def test_an_index_goes_back_to_a_generation_that_was_kept_and_on_from_there(world: World, index: Index) -> None:
    await world.restart_indexer(max_delta_rows=2, retain_bytes=2**30)
    for n in range(6, 12):
        await world.upsert(f"d{n}", f"tower number {n}")
        for _ in range(5):
            await world.indexer.step()
            await anyio.sleep(0.02)
    await world.upsert("d0", "tower number 0, rebuilt")
    await world.ingest.remove(CALLER, "docs", ["d1"])
    await world.settle()
    (listed,) = (await index("ls"))["data"]
    assert listed["kept_generations"]
    oldest = min(listed["kept_generations"])
    assert "keeps generation" in (await index.result("ls")).stdout
    async with indexing(world):
        await index("rollback", "docs", "--generation", str(oldest))
        assert "retains no generation 77" in await index.refused("rollback", "docs", "--generation", "77")
    found = await world.search("tower", limit=50, dense_weight=1.0)
    assert sorted(found) == sorted(["tower number 0, rebuilt", *(f"tower number {n}" for n in range(2, 12))])
    store = await world.catalog.store(CALLER, "docs")
    assert world.searchers.seq(store.index) == store.seq


async def test_what_is_ordered_without_waiting_is_done_when_the_indexer_runs(world: World, index: Index) -> None:
    await index("reembed", "docs", "--model", "small-bag", "--no-wait")
    assert "is not ready" in await index.refused("compare", "docs")
    listed = (await index("ls"))["data"]
    assert [(each["state"], each["vectors"]) for each in listed] == [("searched", 1.0), ("next", 0.0)]
    await index("abandon", "docs")
    assert await index.states() == [("searched", "bag-of-words"), ("dropped", "small-bag")]
    assert "no next model" in await index.refused("abandon", "docs")


async def test_a_golden_set_tells_which_model_finds_what_it_should(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Index
) -> None:
    monkeypatch.setattr("ragagent.providers.registry.embedders", lambda _: world.embedders)
    lines = [json.dumps({"query": f"tower number {n}", "external_id": f"d{n}"}) for n in range(3)]
    (tmp_path / "golden.jsonl").write_text("\n".join(lines))
    (tmp_path / "lines.txt").write_text("tower\n\nnumber 2\n")
    async with indexing(world):
        await index("reembed", "docs", "--model", "small-bag", "--budget", "1")
        found = await index("compare", "docs", "--queries", tmp_path / "golden.jsonl")
        plain = await index.result("compare", "docs", "--queries", tmp_path / "lines.txt")
    assert (found["queries"], found["hits"]["old"]) == (3, {"1": 1.0, "10": 1.0})
    assert found["hits"]["new"]["10"] == 1.0
    assert "over 2 queries" in plain.stdout
    (tmp_path / "golden.jsonl").write_text('{"question": "x"}')
    assert 'Line 1 must hold "query"' in await index.refused("compare", "docs", "--queries", tmp_path / "golden.jsonl")


async def test_a_damaged_index_and_what_is_in_the_way_of_one_are_listed(world: World, index: Index) -> None:
    store = await world.catalog.store(CALLER, "docs")
    await world.database.update(lambda tx: editions.reembed(tx, store, "gone", 4, 1.0))
    await world.reembedder.turn()
    (world.root / "index" / store.id / "MANIFEST").write_bytes(b"nothing")
    result = await index.result("ls")
    assert "damaged" in result.stdout
    assert f"{store.id}-1 waits: Edition" in result.stdout


async def test_damage_is_told_store_by_store(world: World, index: Index) -> None:
    await world.store("other")
    await world.settle()
    assert await index("verify") == {"checked": 2, "damaged": {}}
    store = await world.catalog.store(CALLER, "docs")
    path = world.root / "index" / store.id / "000001.delta" / "rows.i64"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    result = await index.result("verify")
    assert result.exit_code == 1
    assert f"docs ({store.id}): damaged" in result.stdout
    assert f"other ({(await world.catalog.store(CALLER, 'other')).id}): as it was written" in result.stdout
    assert (await index.result("verify", "other")).exit_code == 0
    shutil.rmtree(world.root / "index" / store.id)
    assert "It is not there." in (await index.result("verify", "docs")).stdout


async def test_models_that_are_not_configured_and_stores_that_are_not_there_are_refused(
    world: World, index: Index
) -> None:
    assert "no embedder of the model 'x', only 'bag-of-words', 'small-bag'" in await index.refused(
        "reembed", "docs", "--model", "x"
    )
    assert "no store with the name or id 'none'" in await index.refused("rebuild", "none")
    assert "is of 'bag-of-words' (32) already" in await index.refused("reembed", "docs", "--model", "bag-of-words")
