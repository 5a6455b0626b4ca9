"""A backup put in place: only where nothing is, only when it is whole, and not half."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.conftest import World
from ragagent.config import Data, Session
from ragagent.engine.conversations.conversations import Conversations
from ragagent.engine.keeping import archive, backup, restore
from ragagent.errors import Conflict, Damaged, NotFound
from ragagent.store import snapshot
from ragagent.store.database import Database, newest_schema
from ragagent.store.session_locks import SessionLocks
from ragagent.store.turns import new_id
from ragagent.types import Caller, Message, Turn

pytestmark = pytest.mark.anyio


def ignore(count: int) -> None:
    pass


@pytest.fixture
async def whole(tmp_path: Path) -> Path:
    """Make a backup of a server with one store."""
    (tmp_path / "data").mkdir()
    async with World(tmp_path / "data") as world:
        await world.store()
        await world.upsert("a", "A reload drops no request.")
        await world.settle()
        (tmp_path / "data" / "pepper").write_bytes(b"p" * 32)
        return backup.create(Data(dir=str(world.root)), tmp_path / "b.tar.zst", with_index=True, advance=ignore).path


@pytest.fixture
def target(tmp_path: Path) -> Data:
    return Data(dir=str(tmp_path / "new" / "data"))


def cut(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


def everything(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


def files(data: Data) -> list[str]:
    return sorted(os.listdir(data.path)) if data.path.exists() else []


WHOLE = ["index", "pepper", "ragagent.db"]


async def test_a_new_directory_gets_everything_and_nothing_else(whole: Path, target: Data) -> None:
    done = restore.restore(whole, target, ignore)
    assert files(target) == WHOLE
    assert done.forgotten == 0
    assert snapshot.check(target.database).seq > snapshot.LEAP, "no number of the lost time is given out again"
    assert target.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (target.database, target.pepper)} == {0o600}


async def test_conversations_come_back_and_go_on(tmp_path: Path, target: Data) -> None:
    (tmp_path / "data").mkdir()
    data = Data(dir=str(tmp_path / "data"))
    data.pepper.write_bytes(b"p" * 32)
    data.index.mkdir()
    said = Turn(new_id(), 1000, (Message("user", "Who?"),), "Ada.")
    with closing(Database.open(data.database)) as database:
        async with Conversations(database, SessionLocks(data.session_locks), Session()).session(
            Caller(), "talk"
        ) as talk:
            await talk.append(said)
        backup.create(data, tmp_path / "talks.tar.zst", with_index=True, advance=ignore)
    restore.restore(tmp_path / "talks.tar.zst", target, ignore)
    with closing(Database.open(target.database)) as database:
        async with Conversations(database, SessionLocks(target.session_locks), Session()).session(
            Caller(), "talk"
        ) as talk:
            assert talk.turns == (said,)


async def test_an_empty_directory_will_do_and_so_will_a_mount_point(whole: Path, target: Data) -> None:
    (target.path / "lost+found").mkdir(parents=True)
    restore.restore(whole, target, ignore)
    assert files(target) == ["index", "lost+found", "pepper", "ragagent.db"]


async def test_what_a_server_leaves_beside_its_data_is_in_nobodys_way(whole: Path, target: Data) -> None:
    (target.path / "warm").mkdir(parents=True)
    for left in (target.limits, target.session_locks, target.doorbell, target.path / "supervisor.pid"):
        left.touch()
    restore.restore(whole, target, ignore)
    assert target.database.is_file()


@pytest.mark.parametrize("name", ["ragagent.db", "pepper", "index", "photo.jpg"])
async def test_a_directory_with_anything_in_it_is_refused(whole: Path, target: Data, name: str) -> None:
    target.path.mkdir(parents=True)
    (target.path / name).write_bytes(b"mine")
    with pytest.raises(Conflict, match=f"is not empty: it holds '{name}'"):
        restore.restore(whole, target, ignore)
    assert files(target) == [name]
    assert (target.path / name).read_bytes() == b"mine"


async def test_a_directory_that_a_server_runs_on_is_refused(whole: Path, target: Data) -> None:
    target.path.mkdir(parents=True)
    with (target.path / "supervisor.pid").open("w") as pidfile:
        fcntl.flock(pidfile, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="A server runs on"):
            restore.restore(whole, target, ignore)
    restore.restore(whole, target, ignore)  # What is left of a server that was killed is no server.


async def test_a_restore_that_was_killed_is_done_again(whole: Path, target: Data) -> None:
    """Killed while it unpacked, or between its renames: without a database there is no data."""
    (target.path / "restore.tmp" / "index").mkdir(parents=True)
    (target.path / "index" / "vs_half").mkdir(parents=True)
    (target.path / "pepper").write_bytes(b"half")
    restore.restore(whole, target, ignore)
    assert files(target) == WHOLE
    assert (target.path / "pepper").read_bytes() == b"p" * 32
    assert not (target.path / "index" / "vs_half").exists()


async def test_a_database_that_comes_meanwhile_stays(
    whole: Path, target: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = restore._put

    def late(staging: Path, data: Data) -> None:
        data.database.write_bytes(b"mine")
        put(staging, data)

    monkeypatch.setattr(restore, "_put", late)
    with pytest.raises(Conflict, match="meanwhile"):
        restore.restore(whole, target, ignore)
    assert target.database.read_bytes() == b"mine"


@pytest.mark.parametrize("kept", [100, -1000])
async def test_a_damaged_backup_changes_nothing(whole: Path, target: Data, kept: int) -> None:
    cut(whole, kept)
    with pytest.raises(Damaged, match="is damaged, and nothing was changed"):
        restore.restore(whole, target, ignore)
    assert not target.path.exists()
    with pytest.raises(Damaged):
        restore.verify(whole, ignore)


async def test_there_must_be_a_backup(target: Data, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no backup"):
        restore.restore(tmp_path / "no", target, ignore)


async def test_verify_tells_what_is_in_it_and_changes_nothing(whole: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    listing = restore.verify(whole, ignore)
    assert (listing.seq, listing.schema) == (2, newest_schema())
    assert everything(tmp_path) == before


def rewritten(whole: Path, *changes: str, **fields: object) -> Path:
    """Pack the backup anew with a change to its database, or other words in its listing: its sums are right."""
    room = whole.with_name("room")
    listing = archive.read(whole, ignore, room.joinpath)
    with closing(sqlite3.connect(room / "ragagent.db", isolation_level=None)) as connection:
        for change in changes:
            connection.execute(change)
    with whole.with_name("changed").open("wb") as file:
        writer = archive.Writer(file, 0, ignore)
        for name in listing.files:
            writer.add_path(name, room / name)
        writer.finish(archive.Listing(**{**listing.summary(), **fields}))
    return whole.with_name("changed")


async def test_a_backup_of_a_newer_version_is_refused_by_name(whole: Path, target: Data) -> None:
    newer = newest_schema() + 1
    changed = rewritten(whole, f"PRAGMA user_version = {newer}", schema=newer, ragagent="9.0")
    for check in (lambda: restore.restore(changed, target, ignore), lambda: restore.verify(changed, ignore)):
        with pytest.raises(Conflict, match=f"by RAGAgent 9.0 with schema {newer}; this version knows .* {newer - 1}"):
            check()
    assert not target.path.exists()


async def test_a_database_that_is_not_the_listed_one_is_refused(whole: Path, target: Data) -> None:
    with pytest.raises(Damaged, match="not the one that its listing speaks of"):
        restore.restore(rewritten(whole, seq=99), target, ignore)


async def test_a_database_with_broken_ties_is_refused(whole: Path, target: Data) -> None:
    changed = rewritten(whole, "DELETE FROM documents")
    with pytest.raises(Damaged, match="belongs to a row of 'documents' that is gone"):
        restore.restore(changed, target, ignore)
    assert not target.path.exists()


async def test_the_index_of_a_store_that_is_gone_is_not_put_in_place(whole: Path, target: Data) -> None:
    """The store was erased after its index had been copied."""
    tables = ("vector_stores", "store_totals", "documents", "jobs", "chunks", "vectors_0")
    changed = rewritten(whole, *(f"DELETE FROM {table}" for table in tables))
    restore.restore(changed, target, ignore)
    assert everything(target.index) == []
