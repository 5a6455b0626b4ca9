"""Workers of one host, with their caches and the Redis between them: what is erased goes from all, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from ragagent.cache import keys
from ragagent.cache.keys import Key
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.engine import eraser as module
from ragagent.engine.eraser import Eraser
from ragagent.errors import Invalid
from ragagent.remote.bus import Bus
from ragagent.remote.connection import Remote
from ragagent.store import documents, erasures
from ragagent.store.database import Database
from ragagent.types import Document, VectorStore
from redis_server import RedisServer
from store.conftest import ingested, new_store

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
SECRET = "the text that has to go " * 100


class Worker:
    """A database, a cache and an eraser, as a worker has them."""

    def __init__(self, database: Database, url: str | None) -> None:
        self.database = database
        self.remote = Remote(url, timeout_seconds=0.3) if url else None
        self.local = LocalCache(MIB)
        self.cache = TieredCache(self.local, self.remote)
        bus = Bus(self.remote) if self.remote and url else None
        self.eraser = Eraser(database, self.cache, self.remote, bus)

    def holds(self, key: Key) -> bool:
        return key.rendered in self.local

    async def keep(self, key: Key) -> None:
        await self.cache.put(key, SECRET, Life(60))
        await self.cache.drain()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


@asynccontextmanager
async def working(database: Database, url: str | None, count: int = 2) -> AsyncIterator[list[Worker]]:
    async with AsyncExitStack() as stack:
        workers = [Worker(database, url) for _ in range(count)]
        for worker in workers:
            if worker.remote is not None:
                await stack.enter_async_context(worker.remote)
            stack.push_async_callback(worker.cache.aclose)
            await stack.enter_async_context(worker.eraser)
        yield workers


class Docs:
    """A store with documents to erase, and the keys under which answers about them are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as tx:
            self.store: VectorStore = new_store(tx)
            self.rows: list[Document] = [ingested(tx, self.store, f"text {number}") for number in range(3)]

    def key(self, question: str = "q") -> Key:
        with self._database.read() as tx:
            (seq,) = tx.execute("SELECT seq FROM vector_stores WHERE id = ?", (self.store.id,)).fetchone()
        return keys.answer("default", [(self.store.id, seq, seq)], "p", "e", "g", [question], {})

    def erase(self) -> None:
        with self._database.write() as tx:
            documents.remove(tx, self.rows.pop())


@pytest.fixture
def docs(database: Database) -> Docs:
    return Docs(database)


@pytest.fixture
def slow_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """No poll helps: what is heard, is heard from the bus."""
    monkeypatch.setattr(module, "POLL_SECONDS", 60)


@pytest.fixture
def admin(redis: RedisServer) -> Iterator[Any]:
    with contextlib.closing(redis.admin()) as admin:
        yield admin


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


async def all_joined(workers: list[Worker]) -> None:
    await until(lambda: all(worker.eraser._knows_token for worker in workers))


def in_redis(admin: Any) -> list[bytes]:
    found: list[bytes] = admin.keys("rag:1:*")
    return found


# Without Redis


async def test_every_worker_of_the_host_drops_what_was_erased(database: Database, docs: Docs) -> None:
    async with working(database, None) as workers:
        old = docs.key()
        for worker in workers:
            await worker.keep(old)
            await worker.keep(keys.embedding("m", "text"))
        docs.erase()
        await until(lambda: not any(worker.holds(old) for worker in workers), 5)
        assert all(worker.holds(keys.embedding("m", "text")) for worker in workers)
        new = docs.key()
        for worker in workers:
            await worker.keep(old)  # It was computed before, slowly.
            await worker.keep(new)
            assert (worker.holds(old), worker.holds(new)) == (False, True)


async def test_what_was_erased_before_a_worker_began_is_not_taken_in(database: Database, docs: Docs) -> None:
    old = docs.key()
    docs.erase()
    async with working(database, None, 1) as (worker,):
        assert worker.cache.tags.is_erased(old.tags)
        await worker.keep(old)
        assert not worker.holds(old)


async def test_a_purge_through_one_worker_empties_all(database: Database) -> None:
    mine, theirs = (keys.retrieval(tenant, [("vs_1", 1, 1)], "m", "q", {}) for tenant in ("acme", "other"))
    async with working(database, None, 3) as workers:
        for worker in workers:
            await worker.keep(mine)
            await worker.keep(theirs)
        assert (await workers[0].eraser.purge(keys.tenant_prefix("acme"))).local == 1
        await until(lambda: not any(worker.holds(mine) for worker in workers), 5)
        assert all(worker.holds(theirs) for worker in workers)
        await workers[1].eraser.purge()
        await until(lambda: not any(worker.holds(theirs) for worker in workers), 5)
        with pytest.raises(Invalid):
            await workers[0].eraser.purge("rag:s:")


async def test_who_missed_more_purges_than_are_remembered_drops_everything(database: Database, slow_poll: None) -> None:
    key = keys.retrieval("acme", [("vs_1", 1, 1)], "m", "q", {})
    async with working(database, None) as (one, other):
        await other.keep(key)
        for _ in range(3):
            await one.eraser.purge("rag:1:nobody")
        await other.eraser.step()
        assert other.holds(key)
        for _ in range(3):
            await one.eraser.purge("rag:1:nobody")
        with database.write() as tx:
            tx.execute("DELETE FROM purges WHERE number < 6")
        await other.eraser.step()
        assert not other.holds(key)


# With Redis


@pytest.mark.redis
async def test_redis_and_all_workers_forget_before_anyone_polls(
    database: Database, docs: Docs, redis: RedisServer, admin: Any, slow_poll: None
) -> None:
    async with working(database, redis.url) as workers:
        await all_joined(workers)
        old = docs.key()
        for worker in workers:
            await worker.keep(old)
        assert in_redis(admin) == [old.rendered.encode()]
        docs.erase()
        workers[0].eraser.wake()
        await until(lambda: not any(worker.holds(old) for worker in workers))
        await until(lambda: not in_redis(admin))
        await workers[1].keep(old)
        await workers[1].keep(docs.key())
        assert in_redis(admin) == [docs.key().rendered.encode()]


@pytest.mark.redis
async def test_while_redis_hangs_nothing_is_given_up(
    database: Database, docs: Docs, redis: RedisServer, admin: Any
) -> None:
    async with working(database, redis.url) as workers:
        old = docs.key()
        await workers[0].keep(old)
        redis.pause()
        docs.erase()
        workers[0].eraser.wake()
        await until(lambda: not workers[0].holds(old))
        redis.resume()
        assert in_redis(admin)
        await until(lambda: not in_redis(admin))


@pytest.mark.redis
async def test_who_was_killed_after_the_commit_leaves_it_to_the_next(
    database: Database, docs: Docs, redis: RedisServer, admin: Any
) -> None:
    async with working(database, redis.url, 1) as (worker,):
        docs.erase()
        await until(lambda: worker.eraser._confirmed)
        old = docs.key()
        await worker.keep(old)
    docs.erase()  # Nobody runs who could have heard of it.
    assert in_redis(admin) == [old.rendered.encode()]
    async with working(database, redis.url, 1):
        await until(lambda: not in_redis(admin))


@pytest.mark.redis
async def test_a_redis_that_got_an_old_memory_back_is_cleaned_again(
    database: Database, docs: Docs, redis: RedisServer, admin: Any
) -> None:
    async with working(database, redis.url, 1) as (worker,):
        old = docs.key()
        await worker.keep(old)
        before = {name: (admin.dump(name), max(0, admin.pttl(name))) for name in admin.keys("*")}
        docs.erase()
        await until(lambda: not in_redis(admin))
        redis.kill()
        redis.start()
        for name, (dump, ttl) in before.items():
            admin.restore(name, ttl, dump, replace=True)
        await until(lambda: not in_redis(admin))


@pytest.mark.redis
async def test_what_redis_has_lost_track_of_is_unlinked_by_who_holds_it(
    database: Database, docs: Docs, redis: RedisServer, admin: Any
) -> None:
    async with working(database, redis.url, 1) as (worker,):
        await worker.keep(docs.key())
        admin.delete(*admin.keys("rag:tags:*"))
        docs.erase()
        await until(lambda: not in_redis(admin))


@pytest.mark.redis
async def test_two_hundred_purges_reach_all_workers(
    database: Database, redis: RedisServer, admin: Any, slow_poll: None
) -> None:
    async with working(database, redis.url, 3) as workers:
        await all_joined(workers)
        each = [keys.retrieval(f"tenant {number}", [("vs_1", 1, 1)], "m", "q", {}) for number in range(200)]
        for key in each:
            for worker in workers:
                await worker.cache.put(key, "value", Life(60))
        for worker in workers:
            await worker.cache.drain()
        for number, key in enumerate(each):
            assert (await workers[number % 3].eraser.purge(keys.tenant_prefix(key.tenant))).complete
        await until(lambda: not any(worker.holds(key) for key in each for worker in workers))
        assert not in_redis(admin)


@pytest.mark.redis
async def test_who_was_cut_off_during_a_purge_of_another_host_drops_everything(
    database: Database,
    redis: RedisServer,
    admin: Any,
    tmp_path: Path,
    slow_poll: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = keys.retrieval("acme", [("vs_1", 1, 1)], "m", "q", {})
    with closing(Database.open(tmp_path / "other-host.db")) as elsewhere:
        async with working(database, redis.url, 1) as (here,), working(elsewhere, redis.url, 1) as (there,):
            await all_joined([here, there])
            await here.keep(key)
            admin.client_kill_filter(_type="pubsub")
            await until(lambda: here.eraser._has_joined or not here.eraser._bus.is_joined)  # type: ignore[union-attr]
            await until(lambda: here.eraser._bus.is_joined and not here.eraser._has_joined)  # type: ignore[union-attr]
            assert here.holds(key), "nothing was missed"
            with monkeypatch.context() as patched:
                patched.setattr(here.remote, "dedicated", Remote("redis://127.0.0.1:1/0").dedicated)
                admin.client_kill_filter(_type="pubsub")
                await until(lambda: not here.eraser._bus.is_joined and there.eraser._bus.is_joined)  # type: ignore[union-attr]
                await there.eraser.purge()
                assert here.holds(key)
            await until(lambda: not here.holds(key))


class Late(Remote):
    """Holds every reply to a GET back until it is told to deliver it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_seconds=1.0)
        self.replied = asyncio.Event()
        self.deliver = asyncio.Event()

    async def get(self, key: str) -> Any:
        reply = await super().get(key)
        self.replied.set()
        await self.deliver.wait()
        return reply


@pytest.mark.redis
async def test_a_reply_that_raced_with_an_erasure_does_not_enter_l1(
    database: Database, docs: Docs, redis: RedisServer
) -> None:
    old = docs.key()
    async with working(database, redis.url, 1) as (worker,), Late(redis.url) as late:
        await worker.keep(old)
        local = LocalCache(MIB)
        cache = TieredCache(local, late)
        looked = asyncio.create_task(cache.get(old))
        await late.replied.wait()
        docs.erase()
        with database.read() as tx:
            for erasure in erasures.after(tx, 0):
                cache.erase(erasure)
        late.deliver.set()
        assert (await looked) is not None, "it was asked for before the delete: served this once"
        assert old.rendered not in local
        await cache.aclose()


async def test_a_slow_answer_survives_the_purge_of_another_tenant_and_no_other(database: Database) -> None:
    mine, theirs = (keys.retrieval(tenant, [("vs_1", 1, 1)], "m", "q", {}) for tenant in ("acme", "other"))
    async with working(database, None, 1) as (worker,):
        epoch = worker.cache.epoch
        await worker.eraser.purge(keys.tenant_prefix("acme"))
        for key in (mine, theirs):
            await worker.cache.put(key, "computed since before", Life(60), epoch=epoch)
        assert (worker.holds(mine), worker.holds(theirs)) == (False, True)
