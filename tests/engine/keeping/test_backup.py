"""A backup of a directory that is in use: all of it or nothing, and what is wrong with the database is found."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent.config import Data
from ragagent.engine.keeping import archive, backup, restore
from ragagent.engine.keeping.backup import Backup
from ragagent.errors import Conflict, Damaged, NotFound, StorageFull, Unavailable
from ragagent.index import verify
from ragagent.store import keys, snapshot

pytestmark = pytest.mark.anyio

TEXTS = {"a": "A reload drops no request.", "b": "A backup is one verified file.", "c": "重载不丢请求。"}


def ignore(count: int) -> None:
    pass


def made(world: World, name: str = "b.tar.zst", *, with_index: bool = True) -> Backup:
    return backup.create(Data(dir=str(world.root)), world.root.parent / name, with_index=with_index, advance=ignore)


async def restored(done: Backup) -> World:
    directory = done.path.with_name(f"{done.path.name}.restored")
    restore.restore(done.path, Data(dir=str(directory)), ignore)
    return World(directory)


@pytest.fixture
async def filled(tmp_path: Path) -> World:
    (tmp_path / "data").mkdir()
    world = World(tmp_path / "data")
    await world.store()
    for name, text in TEXTS.items():
        await world.upsert(name, text)
    await world.settle()
    return world


async def answers(world: World) -> list[list[tuple[int, str, float]]]:
    """Return what each question finds: chunk, file and score."""
    found = [await world.retrieve(question) for question in ("reload request", "which file is verified?", "重载")]
    return [[(item.chunk_id, item.file_id, item.score) for item in retrieval.evidence] for retrieval in found]


async def test_the_restored_directory_answers_the_same(filled: World) -> None:
    pepper = keys.pepper(filled.root / "pepper")
    with filled.database.write() as tx:
        _, token = keys.add(tx, pepper, tenant="default", name="ci", stores=None)
    expected = await answers(filled)
    assert all(expected)
    done = made(filled)
    async with filled, await restored(done) as other:
        assert await answers(other) == expected, "before its indexer has done anything"
        assert [verify.verify(other.root / "index", name) for name in done.listing.stores] == [[]]
        await other.settle()
        assert await answers(other) == expected
        with other.database.read() as tx:
            assert keys.verify(tx, keys.pepper(other.root / "pepper"), token) is not None


async def test_a_backup_is_a_secret(filled: World) -> None:
    async with filled:
        assert made(filled).path.stat().st_mode & 0o777 == 0o600


async def test_in_a_directory_it_is_named_by_the_time(filled: World) -> None:
    async with filled:
        (filled.root.parent / "backups").mkdir()
        name = made(filled, "backups").path.name
        assert name.startswith("ragagent-")
        assert name.endswith(".tar.zst")
        assert os.listdir(filled.root.parent / "backups") == [name]


async def test_without_the_index_it_is_smaller_and_the_index_is_built_again(filled: World) -> None:
    async with filled:
        whole, small = made(filled), made(filled, "small", with_index=False)
        assert small.listing.bytes < whole.listing.bytes
        assert (small.listing.stores, len(whole.listing.stores)) == ({}, 1)
        expected = await answers(filled)
        async with await restored(small) as other:
            await other.settle()
            assert await answers(other) == expected


async def test_what_is_written_between_index_and_database_is_published_after_the_restore(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was erased, though the tombstones by which the index would learn it are gone."""
    copy = snapshot.copy

    async def meanwhile() -> None:
        await filled.ingest.remove(CALLER, "docs", ["a"])
        await filled.upsert("b", "A backup is one file, and its second version.")
        await filled.upsert("d", "The document that came while the backup was made.")
        await filled.settle()
        with filled.database.read() as tx:
            assert tx.execute("SELECT count(*) FROM tombstones").fetchone()[0] == 0

    def late(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
        anyio.from_thread.run(meanwhile)
        copy(source, target, progress)

    monkeypatch.setattr(snapshot, "copy", late)
    async with filled:
        done = await anyio.to_thread.run_sync(made, filled)
        directory = filled.root.parent / "other"
        assert restore.restore(done.path, Data(dir=str(directory)), ignore).forgotten == 1
        async with World(directory) as other:
            await other.settle()
            (manifest,) = [manifest for _, manifest in other.publisher.manifests]
            with other.database.read() as tx:
                alive = tx.execute("SELECT count(*) FROM chunks WHERE dead_seq IS NULL").fetchone()[0]
            assert manifest.rows == alive == 3, "the index holds no row that the database does not know"
            assert await answers(other) == await answers(filled)


async def test_a_damaged_index_is_left_out_and_told(filled: World) -> None:
    async with filled:
        (store,) = (filled.root / "index").iterdir()
        (store / "MANIFEST").write_bytes(b"junk")
        done = made(filled)
        assert (done.left_out, done.listing.stores) == ((store.name,), {})
        async with await restored(done) as other:
            await other.settle()
            assert await other.search("reload") != []


async def test_a_file_that_cannot_be_read_is_named(filled: World) -> None:
    async with filled:
        (generation,) = (filled.root / "index").glob("*/000001")
        (generation / "odd").mkdir()  # Reading a directory fails as a bad sector does, after it was opened.
        with pytest.raises(Unavailable, match=r"'index/vs_\w+/000001/odd' cannot be read: Is a directory"):
            made(filled)
        assert left(filled) == []


async def test_a_damaged_database_is_found_and_says_what_to_do(filled: World) -> None:
    async with filled:
        pass
    path = filled.root / "ragagent.db"
    data = bytearray(path.read_bytes())
    at = data.index(TEXTS["b"].encode()) // 4096 * 4096
    data[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"No backup was made\. Stop the server, .* 'ragagent restore'") as caught:
        made(filled)
    assert caught.value.code == "database_damaged"
    assert left(filled) == []


async def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(filled: World, tmp_path: Path) -> None:
    async with filled:
        (tmp_path / "b.tar.zst").write_bytes(b"mine")
        with pytest.raises(Conflict, match="exists already"):
            made(filled)
        assert (tmp_path / "b.tar.zst").read_bytes() == b"mine"
        with pytest.raises(Unavailable, match="Nothing can be written to"):
            made(filled, "no/such/place")
    with pytest.raises(NotFound, match="There is no database"):
        backup.create(Data(dir=str(tmp_path / "no")), tmp_path / "x", with_index=True, advance=ignore)


async def test_a_full_disk_leaves_no_half_archive(filled: World) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from ragagent.config import Data\n"
        "from ragagent.engine.keeping import backup; from ragagent.errors import StorageFull\n"
        # A limit on every file that the process writes: what a full disk says as ENOSPC becomes EFBIG.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try: backup.create(Data(dir=sys.argv[1]), Path(sys.argv[2]), with_index=True, advance=lambda count: None)\n"
        "except StorageFull as exc: print(exc.message)\n"
    )
    async with filled:
        incompressible(filled)
        command = [sys.executable, "-c", code, str(filled.root), str(filled.root.parent / "b.tar.zst")]
        done = await anyio.run_process(command, check=False)
        assert (b"is full; no backup was made" in done.stdout, done.stderr) == (True, b"")
        assert left(filled) == []


async def test_a_disk_that_is_full_for_the_databases_copy_is_named(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("The disk that holds the data directory is full; nothing was written.")

    monkeypatch.setattr(snapshot, "copy", full)
    async with filled:
        with pytest.raises(StorageFull, match=f"holds '{filled.root.parent}' is full; no backup was made"):
            made(filled)
        assert left(filled) == []


async def test_ctrl_c_leaves_nothing(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshot, "copy", interrupt)
    async with filled:
        with pytest.raises(KeyboardInterrupt):
            made(filled)
        assert left(filled) == []


async def test_what_is_read_back_must_be_what_was_written(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = archive.Writer.finish

    def and_flip(writer: archive.Writer, listing: archive.Listing) -> archive.Listing:
        writer.files["ragagent.db"] = archive.Entry(1, "no such sum")
        return finish(writer, listing)

    monkeypatch.setattr(archive.Writer, "finish", and_flip)
    async with filled:
        with pytest.raises(Damaged, match=r"'ragagent\.db' in the archive is not what was written"):
            made(filled)
        assert left(filled) == []


def incompressible(world: World) -> None:
    """Put so much into the index that the archive outgrows the limit before the database's turn comes."""
    (generation,) = (world.root / "index").glob("*/000001")
    (generation / "more").write_bytes(random.Random(1).randbytes(400_000))


def left(world: World) -> list[str]:
    return [name for name in os.listdir(world.root.parent) if name != world.root.name]
