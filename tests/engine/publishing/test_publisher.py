"""From SQLite to the index: whatever happens to the one, it ends as the other says."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent.engine.publishing import cleaning, open_index
from ragagent.engine.publishing import publisher as publishing
from ragagent.errors import Conflict, Damaged, Invalid, StorageFull, Unavailable
from ragagent.index.compaction import Compaction
from ragagent.index.verify import verify
from ragagent.index.writer import Writer
from ragagent.store import chunks, stores
from ragagent.types import VectorStore

pytestmark = pytest.mark.anyio


def rows(world: World, store: VectorStore) -> int:
    with world.database.read() as tx:
        row = stores.get(tx, store.id)
    assert row is not None
    with world.searchers.pin(row.index) as searcher:
        return searcher.rows


async def filled(world: World, count: int = 3, name: str = "docs") -> VectorStore:
    store = await world.store(name)
    for n in range(count):
        await world.upsert(f"d{n}", f"tower {n}", store=name)
    await world.settle()
    return store


async def test_an_empty_store_is_shown_at_its_own_seq(world: World) -> None:
    store = await world.store()
    await world.settle()
    assert world.searchers.seq(store.id) == store.seq
    assert [(name, manifest.store) for name, manifest in world.publisher.manifests] == [("docs", store.id)]


async def test_a_store_that_stands_still_is_left_alone(world: World) -> None:
    await filled(world)
    published = (await world.catalog.store(CALLER, "docs")).seq
    before = world.publisher.manifests
    assert not await world.publisher.publish()
    assert world.publisher.manifests == before
    assert before[0][1].seq == published


async def test_many_rows_are_shown_at_once_though_they_come_in_slices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_index, "PUBLISH_ROWS", 2)
    store = await world.store()
    for n in range(7):
        await world.upsert(f"d{n}", f"tower {n}")
    seen: list[int] = []
    real = Writer.publish

    def watched(writer: Writer, *arguments: object, **named: object) -> None:
        real(writer, *arguments, **named)  # type: ignore[arg-type]
        seen.append(world.searchers.seq(store.id))

    monkeypatch.setattr(Writer, "publish", watched)
    await world.settle()
    assert rows(world, store) == 7
    assert len(await world.search("tower")) == 7
    assert len(set(seen)) == 2, "readers saw the old seq until the last slice, then the new one"


# Damage


@pytest.mark.parametrize(
    "broken", ["MANIFEST", "000001/vectors.faiss", "000001.delta/vectors.f32", "lexical/meta.json"]
)
async def test_a_damaged_index_is_made_anew_from_the_database(world: World, broken: str) -> None:
    store = await filled(world)
    await world.publisher.close()
    path = world.root / "index" / store.id / broken
    data = path.read_bytes()
    path.write_bytes(b"\x00" * (len(data) // 2))
    world.start_indexer()
    with contextlib.suppress(Unavailable):  # What of it is open already goes on.
        await world.search("tower", dense_weight=0.0)
    await world.upsert("d3", "tower 3")
    await world.settle()
    assert sorted(await world.search("tower")) == ["tower 0", "tower 1", "tower 2", "tower 3"]
    assert (await world.catalog.store(CALLER, "docs")).edition == 1


async def test_an_index_that_cannot_be_read_is_said_to_be_rebuilt_and_never_looks_empty(world: World) -> None:
    store = await filled(world)
    await filled(world, 1, "other")
    await world.publisher.close()
    shutil.rmtree(world.root / "index" / store.id)
    world.start_indexer()
    for _ in range(2):
        with pytest.raises(Unavailable, match="is being rebuilt from the database") as caught:
            await world.search("tower")
        assert caught.value.retry_after
    assert await world.search("tower", ["other"]) == ["tower 0"]
    (counts,) = await world.catalog.counts([store])
    assert counts.in_progress == 3
    await world.settle()
    assert len(await world.search("tower")) == 3


async def test_vectors_found_damaged_by_a_merge_are_made_anew_from_the_database(world: World) -> None:
    await world.restart_indexer(max_delta_rows=2)
    store = await filled(world, 3)
    await built(world)
    with world.searchers.pin(store.id) as searcher:
        generation = searcher.generation
    path = world.root / "index" / store.id / f"{generation:06d}" / "vectors.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for n in range(3, 7):
        await world.upsert(f"d{n}", f"tower {n}")
    for _ in range(200):
        await world.indexer.step()
        anew = await world.catalog.store(CALLER, "docs")
        if anew.index != store.index:
            break
        await anyio.sleep(0.01)
    await built(world)
    assert anew.index != store.index
    assert rows(world, store) == 7
    assert verify(world.root / "index", anew.index) == []
    assert sorted(await world.search("tower", limit=20)) == [f"tower {n}" for n in range(7)]


async def test_an_index_that_is_gone_is_made_anew_from_the_database(world: World) -> None:
    store = await filled(world)
    await world.publisher.close()
    shutil.rmtree(world.root / "index" / store.id)
    world.start_indexer()
    await world.settle()
    assert rows(world, store) == 3


async def test_a_damaged_database_does_not_cost_the_index(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled(world)
    manifest = (world.root / "index" / store.id / "MANIFEST").read_bytes()
    await world.upsert("new", "text")

    def damaged(*_: object, **__: object) -> None:
        raise sqlite3_corrupt()

    monkeypatch.setattr(chunks, "buried", damaged)
    with pytest.raises(Damaged, match="database file"):
        await world.indexer.step()
    assert (world.root / "index" / store.id / "MANIFEST").read_bytes() == manifest


def sqlite3_corrupt() -> sqlite3.DatabaseError:
    """Return the error of a page that is not what was written, as SQLite itself words it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET rootpage = 999")
        connection.execute("PRAGMA writable_schema = RESET")
        try:
            connection.execute("SELECT * FROM t").fetchall()
        except sqlite3.DatabaseError as exc:
            return exc
    raise AssertionError("SQLite found nothing wrong")


async def test_a_database_restored_from_a_backup_does_not_lose_what_is_written_next(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await filled(world, 1)
        with closing(sqlite3.connect(tmp_path / "backup.db")) as backup, world.database.read() as tx:
            tx.backup(backup)
        for n in range(5):
            await world.upsert(f"later{n}", f"later tower {n}")
        await world.settle()
    restore(tmp_path)
    async with World(tmp_path) as world:
        await world.upsert("new", "zebra")
        await world.settle()
        # By words alone: the new chunk has the id, and with it the vector, of one that the backup does not know.
        assert await world.search("zebra", dense_weight=0.0) == ["zebra"]


def restore(directory: Path) -> None:
    for leftover in directory.glob("ragagent.db*"):
        leftover.unlink()
    (directory / "backup.db").rename(directory / "ragagent.db")


# One store's trouble


async def test_a_store_that_cannot_be_published_does_not_hold_up_the_others(world: World) -> None:
    first, second = await world.store("first"), await world.store("second")
    await world.upsert("a", "tower", store="first")
    await world.upsert("b", "tower", store="second")
    await world.indexer._ingest()
    with world.database.write() as tx:
        tx.execute(
            "UPDATE vectors_0 SET vector = zeroblob(8) WHERE chunk_id IN (SELECT id FROM chunks WHERE store_id = ?)",
            [first.id],
        )
    for _ in range(2):
        with pytest.raises(Invalid, match="vector"):
            await world.publisher.publish()
        assert rows(world, second) == 1


async def test_a_compaction_that_fails_is_tried_again_and_publishing_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.restart_indexer(max_delta_rows=2)
    real, tries = Compaction.run, 0

    def full_once(build: Compaction) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StorageFull("Full.")
        real(build)

    monkeypatch.setattr(Compaction, "run", full_once)
    store = await world.store()
    failures = 0
    for n in range(12):
        await world.upsert(f"d{n}", f"tower {n}")
        for _ in range(3):
            try:
                await world.indexer.step()
            except StorageFull:
                failures += 1
    await built(world)
    assert (failures, tries >= 2) == (1, True)
    with world.searchers.pin(store.id) as searcher:
        assert (searcher.rows, searcher.generation >= 2) == (12, True)


async def test_a_generation_that_cannot_be_put_in_service_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.restart_indexer(max_delta_rows=1)
    other = await filled(world, 1, "other")

    def full(writer: Writer, build: Compaction) -> None:
        build.close()
        writer.close()  # As the writer does, when a step of it fails.
        raise StorageFull("Full.")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "finish_compaction", full)
        await world.store()
        for n in range(3):
            await world.upsert(f"d{n}", f"tower {n}")
        with pytest.raises(StorageFull):
            await built(world)
    await world.upsert("new", "text", store="other")
    await world.settle()
    assert rows(world, other) == 2


async def built(world: World) -> None:
    """Step until no generation is in the making."""
    await world.settle()
    while any(index.is_building for index in world.publisher._open.values()):
        await world.indexer.step()


# Housekeeping


async def test_a_large_delta_becomes_a_generation_with_the_same_answers(world: World) -> None:
    await world.restart_indexer(max_delta_rows=4)
    store = await world.store()
    for n in range(12):
        await world.upsert(f"d{n}", f"tower {n}")
        await world.indexer.step()
    await built(world)
    with world.searchers.pin(store.id) as searcher:
        assert searcher.generation > 1
    assert sorted(await world.search("tower", limit=20)) == sorted(f"tower {n}" for n in range(12))


async def test_no_more_writers_stay_open_than_are_of_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "OPEN_WRITERS", 2)
    opened = [await filled(world, 1, f"s{n}") for n in range(5)]
    await world.settle()
    assert len(world.publisher._open) == 2
    await world.upsert("more", "text", store="s0")
    await world.settle()
    assert rows(world, opened[0]) == 2
    assert len(world.publisher.manifests) == 5


async def test_a_step_looks_at_the_stores_that_changed_and_keeps_few_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "KNOWN_STORES", 3)
    for n in range(6):
        await filled(world, 1, f"s{n}")
    await world.restart_indexer()
    await world.settle()
    assert world.publisher._open == {}, "nothing is behind, so nothing is opened"
    assert (len(world.publisher.manifests), world.publisher.store_count) == (3, 6)
    assert world.publisher._due() == []
    await world.upsert("more", "text", store="s4")
    await world.settle()
    assert len(world.publisher._open) == 1
    assert "s4" in [name for name, _ in world.publisher.manifests]


async def test_a_deleted_store_is_erased_in_slices_and_its_files_go_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "ERASE_DOCUMENTS", 2)
    store = await filled(world)
    await world.catalog.delete_store(CALLER, store.id)
    await world.settle()
    assert not (world.root / "index" / store.id).exists()
    assert world.publisher.manifests == []
    with world.database.read() as tx:
        assert stores.deleted(tx) == []
        assert tx.execute("SELECT count(*) FROM chunks").fetchone()[0] == 0
        assert tx.execute("SELECT count(*) FROM files").fetchone()[0] == 0


async def test_a_store_deleted_while_its_generation_is_built_is_erased(world: World) -> None:
    await world.restart_indexer(max_delta_rows=1)
    store = await world.store()
    for n in range(3):
        await world.upsert(f"d{n}", f"tower {n}")
    await world.indexer.step()
    assert any(index.is_building for index in world.publisher._open.values())
    await world.catalog.delete_store(CALLER, store.id)
    await world.settle()
    assert not (world.root / "index" / store.id).exists()


async def test_replaced_versions_are_swept_when_nobody_can_be_reading_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "ERASE_DOCUMENTS", 1)
    await world.store()
    for round_ in range(2):
        for n in range(3):
            await world.upsert(f"d{n}", f"tower {n} of round {round_}")
        await world.settle()

    def standing() -> int:
        with world.database.read() as tx:
            return int(tx.execute("SELECT count(*) FROM documents").fetchone()[0])

    assert standing() == 6
    monkeypatch.setattr(cleaning, "GRACE_SECONDS", 0.0)
    world.publisher._cleaner._next_sweep = 0.0
    await world.indexer.step()  # The first sweep only notes what is shown.
    assert standing() == 6
    await world.indexer.step()
    assert standing() == 3
    await world.settle()
    with world.database.read() as tx:
        assert tx.execute("SELECT count(*) FROM tombstones").fetchone()[0] == 0
    found = (await world.retrieve("tower")).found
    assert len(found.hits) == 3, "the lexical leg has forgotten them as well"


async def test_versions_that_no_reader_sees_take_no_place_in_the_words_leg(world: World) -> None:
    await world.store()
    await world.upsert("other", "tower")
    for n in range(5):
        await world.upsert("hot", f"tower tower tower of round {n}")
        await world.settle()
        if n == 2:
            await world.restart_indexer()
    found = (await world.retrieve("tower")).found
    assert sum(hit.lexical is not None for _, hit in found.hits) == 3, "the other, the newest, and the one before it"


async def test_an_index_of_another_model_is_a_conflict_that_is_said(world: World) -> None:
    await filled(world)
    with world.database.write() as tx:
        tx.execute("UPDATE vector_stores SET model = 'other', seq = seq + 1")
    await world.publisher.close()
    world.start_indexer()
    with pytest.raises(Conflict, match="its index must be made anew"):
        await world.publisher.publish()
