"""Jobs as a caller sees and changes them."""

from __future__ import annotations

import pytest

from engine.conftest import CALLER, World
from ragagent.engine.indexing import workbench
from ragagent.engine.queue import document_id, job_id
from ragagent.errors import Conflict, NotFound
from ragagent.store import jobs
from ragagent.types import Caller, Document, Job

pytestmark = pytest.mark.anyio


async def seen(world: World, row: Document) -> Job:
    return await world.queue.job(CALLER, f"job_{row.id}")


async def listed(world: World, **asked: str) -> dict[str, str]:
    defaults = {"store": None, "status": None, "after": None}
    rows = await world.queue.jobs(CALLER, **{**defaults, **asked}, limit=99)
    return {job.filename: job.status for job in rows}


async def test_a_document_is_a_job_from_its_first_moment_to_its_last(world: World) -> None:
    await world.store()
    row = await world.attach("tall tower")
    assert (await seen(world, row)).status == "queued"
    await world.indexer._ingest()
    assert await listed(world) == {"a.txt": "publishing"}
    await world.settle()
    assert (await seen(world, row)).status == "completed"
    assert await listed(world) == {}


async def test_the_queue_tells_how_much_waits_and_how_fast_it_goes(world: World) -> None:
    await world.store()
    for name in ("a", "b", "c"):
        await world.upsert(name, "text")
    state = await world.queue.state()
    assert (state.waiting.documents, state.waiting.bytes, state.rate.documents) == (3, 12, 0.0)
    assert state.stages == {"queued": 3, "parsing": 0, "embedding": 0, "publishing": 0}
    await world.indexer._ingest()
    state = await world.queue.state()
    assert state.stages["publishing"] == 3
    assert state.rate.documents > 0
    await world.settle()
    assert not any((await world.queue.state()).stages.values())


async def test_what_failed_stays_listed_and_is_found_when_its_second_try_is_published(world: World) -> None:
    await world.store()
    row = await world.attach("tall tower", "a.txt")
    world.embedder.model = "another"
    await world.settle()
    world.embedder.model = "bag-of-words"
    await world.attach("later tower", "b.txt")
    await world.settle()
    assert await listed(world) == await listed(world, status="failed") == {"a.txt": "failed"}
    again = await world.queue.retry(CALLER, f"job_{row.id}")
    assert (again.status, again.error_message, again.attempts) == ("queued", None, 0)
    assert again.seq > row.seq
    await world.settle()
    assert sorted(await world.search("tower")) == ["later tower", "tall tower"]
    with pytest.raises(Conflict, match="is done"):
        await world.queue.retry(CALLER, f"job_{row.id}")


async def test_what_was_cancelled_is_not_ingested_and_can_come_again(world: World) -> None:
    await world.store()
    row = await world.attach("tall tower")
    for _ in range(2):
        assert (await world.queue.cancel(CALLER, f"job_{row.id}")).status == "cancelled"
    await world.settle()
    assert await world.search("tower") == []
    assert await listed(world, store="docs") == {"a.txt": "cancelled"}
    await world.queue.retry(CALLER, f"job_{row.id}")
    await world.settle()
    assert await world.search("tower") == ["tall tower"]


async def test_what_is_over_cannot_be_cancelled(world: World) -> None:
    await world.store()
    done, failed = await world.attach("tall tower"), await world.attach(b"\x00\x01" * 100, "bad.txt")
    await world.indexer._ingest()
    for row, words in ((done, "delete its document instead"), (failed, "has failed")):
        with pytest.raises(Conflict, match=words):
            await world.queue.cancel(CALLER, f"job_{row.id}")


async def test_a_try_again_of_what_waits_is_now(world: World) -> None:
    await world.store()
    row = await world.attach("tall tower")
    await world.database.update(lambda tx: tx.execute("UPDATE jobs SET due_at = 9e9, attempts = 2"))
    await world.settle()
    assert (await seen(world, row)).status == "queued"
    await world.queue.retry(CALLER, f"job_{row.id}")
    await world.settle()
    assert await world.search("tower") == ["tall tower"]


async def test_an_older_version_is_not_brought_back_over_a_newer_one(world: World) -> None:
    await world.store()
    old = (await world.upsert("a", "old tower")).documents[0]
    world.embedder.model = "another"
    await world.settle()
    world.embedder.model = "bag-of-words"
    new = (await world.upsert("a", "new tower")).documents[0]
    with pytest.raises(Conflict, match=f"job_{new.id}"):
        await world.queue.retry(CALLER, f"job_{old.id}")


async def test_a_version_that_failed_leaves_the_old_one_and_replaces_it_when_it_is_mended(world: World) -> None:
    await world.store()
    await world.upsert("a", "old tower")
    await world.settle()
    new = (await world.upsert("a", "new tower")).documents[0]
    world.embedder.model = "another"
    await world.settle()
    world.embedder.model = "bag-of-words"
    assert await world.search("tower") == ["old tower"]
    await world.queue.retry(CALLER, f"job_{new.id}")
    while (await seen(world, new)).status != "completed":
        assert len(await world.search("tower")) == 1
        await world.indexer.step()
    assert await world.search("tower") == ["new tower"]


async def test_who_works_on_a_job_can_be_seen(world: World) -> None:
    await world.store()
    row = await world.attach("tall tower")
    await world.database.update(lambda tx: jobs.take(tx, world.indexer._bench.holder, 1, 100))
    assert not workbench.is_stuck(await seen(world, row))
    await world.database.update(lambda tx: tx.execute("UPDATE jobs SET holder_start = holder_start + 1"))
    assert workbench.is_stuck(await seen(world, row))
    # Whoever it was, the one that has the lock takes it at once.
    await world.settle()
    assert (await seen(world, row)).status == "completed"


async def test_nobody_reaches_into_the_jobs_of_others(world: World) -> None:
    await world.store()
    other = await world.store("other")
    row = await world.attach("tall tower")
    for caller in (Caller(tenant="b"), Caller(stores=frozenset([other.id]))):
        for act in (world.queue.job, world.queue.cancel, world.queue.retry):
            with pytest.raises(NotFound, match=f"'job_{row.id}'"):
                await act(caller, f"job_{row.id}")
        assert await world.queue.jobs(caller, store=None, status=None, after=None, limit=9) == []
        with pytest.raises(NotFound):
            await world.queue.jobs(caller, store="docs", status=None, after=None, limit=9)
    assert job_id(await seen(world, row)) == f"job_{row.id}"


@pytest.mark.parametrize("name", ["job_", "job_x", "7", "job_-1", "job_٣", "job_1 ", "job_" + "9" * 19, "job_7\n"])
def test_what_is_no_id_of_a_job_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        document_id(name)
