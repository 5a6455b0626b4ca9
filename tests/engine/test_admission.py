"""Who may add to a full queue and a full store: nobody, and nothing of a refused write stays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent import config
from ragagent.engine.admission import PAUSE_SECONDS, UNKNOWN_PAUSE_SECONDS
from ragagent.engine.ingest import Attachment, NewDocument
from ragagent.errors import Limited, OverQuota
from ragagent.store import backlog, jobs
from ragagent.types import Page

pytestmark = pytest.mark.anyio


def limit(world: World, **limits: Any) -> None:
    """Set limits, those of the queue by the names of [ingest] and those of stores by the names of [quota]."""
    queue = {key: value for key, value in limits.items() if key.startswith("max_queue")}
    quota = {key: value for key, value in limits.items() if key.startswith("store")}
    for part in (world.ingest, world.queue):
        setattr(part, "_limits" if part is world.ingest else "_ingest", config.Ingest(**queue))
        part._quota = config.Quota(**quota)


async def upsert(world: World, *names: str, text: str = "text") -> None:
    await world.ingest.upsert(CALLER, "docs", [NewDocument(name, text) for name in names])


async def count(world: World, table: str) -> int:
    return await world.database.view(lambda tx: int(tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


async def everything(world: World) -> list[int]:
    return [await count(world, table) for table in ("files", "file_contents", "documents", "jobs", "batches")]


# The queue


async def test_a_full_queue_takes_nothing_and_says_when_to_come_back(world: World) -> None:
    await world.store()
    limit(world, max_queue_documents=3)
    await upsert(world, "a", "b")
    before, seq = await everything(world), (await world.catalog.store(CALLER, "docs")).seq
    with pytest.raises(Limited, match="2 documents of") as refused:
        await upsert(world, "c", "d")  # Two where there is room for one: neither.
    assert refused.value.retry_after == UNKNOWN_PAUSE_SECONDS
    assert (await everything(world), (await world.catalog.store(CALLER, "docs")).seq) == (before, seq)
    await upsert(world, "c")
    with pytest.raises(Limited):
        await upsert(world, "d")
    await world.settle()
    await upsert(world, "d")


async def test_the_bytes_that_wait_are_limited_as_well(world: World) -> None:
    await world.store()
    limit(world, max_queue_bytes=10)
    await upsert(world, "a", text="x" * 6)
    with pytest.raises(Limited):
        await upsert(world, "b", text="x" * 5)
    await upsert(world, "b", text="x" * 4)


async def test_an_empty_queue_takes_a_write_however_large(world: World) -> None:
    await world.store()
    limit(world, max_queue_documents=2, max_queue_bytes=3)
    await upsert(world, "a", "b", "c")


async def test_what_is_stored_already_needs_no_room(world: World) -> None:
    store = await world.store()
    limit(world, max_queue_documents=2)
    file = await world.upload("text")
    await upsert(world, "a")
    await world.ingest.attach(CALLER, store.id, [Attachment(file.id)])
    await upsert(world, "a")
    await world.ingest.attach(CALLER, store.id, [Attachment(file.id)])
    other = await world.upload("other")
    for attach in (world.ingest.attach, world.ingest.attach_batch):
        with pytest.raises(Limited):
            await attach(CALLER, store.id, [Attachment(other.id)])
    assert await count(world, "batches") == 0


async def test_the_pause_is_what_the_queue_needs_to_make_room(world: World) -> None:
    await world.store()
    limit(world, max_queue_documents=5)
    await upsert(world, *"abcde")
    for drained, expected in ((1, 25.0), (10_000, PAUSE_SECONDS[0])):
        with world.database.write() as tx:
            tx.execute("DELETE FROM drained")
            backlog.note_drained(tx, drained, 100)
            tx.execute("UPDATE drained SET at = at - 10")
        with pytest.raises(Limited) as refused:
            await upsert(world, "f", "g")
        shortest, longest = PAUSE_SECONDS
        assert shortest <= (refused.value.retry_after or 0) <= longest
        assert (refused.value.retry_after or 0) == pytest.approx(expected, abs=6)


async def test_a_retry_of_a_job_needs_room_too(world: World) -> None:
    await world.store()
    bad = await world.attach(b"\x00\x01" * 100, "bad.txt")
    await world.settle()
    limit(world, max_queue_documents=1)
    await upsert(world, "a")
    with pytest.raises(Limited):
        await world.queue.retry(CALLER, f"job_{bad.id}")
    await world.settle()
    assert (await world.queue.retry(CALLER, f"job_{bad.id}")).status == "queued"


# Quotas


async def test_a_full_store_says_so_and_names_its_use(world: World) -> None:
    store = await world.store()
    limit(world, store_documents=2)
    await upsert(world, "a", "b")
    before = await everything(world)
    with pytest.raises(OverQuota) as refused:
        await upsert(world, "c")
    assert refused.value.message == (
        "Vector store 'docs' may hold 2 documents (quota.store_documents); it holds 2, and this write would make that "
        "3. Nothing was stored."
    )
    assert refused.value.retry_after is None
    assert await everything(world) == before
    await world.store("other")
    await world.upsert("c", "text", store="other")
    await world.ingest.remove(CALLER, store.id, ["a"])
    await upsert(world, "c")


async def test_a_new_version_is_not_refused_for_the_old_ones_sake(world: World) -> None:
    await world.store()
    limit(world, store_documents=2, store_bytes=2 * 1000)
    for text in ("x" * 900, "y" * 900, "z" * 900):
        await upsert(world, "a", "b", text=text)  # Once completed, once queued: it never counts twice.
        await upsert(world, "a", "b", text=text.upper())
    await world.settle()
    with world.database.read() as tx:
        used = backlog.usage(tx, (await world.catalog.store(CALLER, "docs")).id)
    assert used.documents == 2
    await upsert(world, "a", "b", text="w" * 900)


async def test_the_bytes_of_a_store_are_limited_and_it_may_always_shrink(world: World) -> None:
    await world.store()
    await upsert(world, "a", "b", text="x" * 1000)
    limit(world, store_bytes=1500)  # Lowered below what there is.
    with pytest.raises(OverQuota, match=r"1500 bytes \(quota.store_bytes\); it holds 2000"):
        await upsert(world, "c", text="x")
    with pytest.raises(OverQuota):
        await upsert(world, "a", text="x" * 1001)
    await upsert(world, "a", text="x" * 10)


async def test_what_failed_takes_no_room_until_it_is_tried_again(world: World) -> None:
    store = await world.store()
    bad = await world.attach(b"\x00\x01" * 100, "bad.txt")
    await world.settle()
    limit(world, store_documents=1)
    file = await world.upload("text")
    await world.ingest.attach(CALLER, store.id, [Attachment(file.id)])
    with pytest.raises(OverQuota):
        await world.queue.retry(CALLER, f"job_{bad.id}")


# Twice the same


UPSERT = """
import sys, anyio
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[1])
from engine.conftest import World
async def main():
    world = World(Path(sys.argv[2]))
    for number in range(20):
        await world.upsert(f"doc{number}", f"text {number}")
    await world.__aexit__()
anyio.run(main)
"""


async def test_two_processes_with_the_same_documents_store_each_once(world: World) -> None:
    await world.store()
    tests = str(Path(__file__).parents[1])
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(anyio.run_process, [sys.executable, "-c", UPSERT, tests, str(world.root)])
    assert await everything(world) == [20, 20, 20, 20, 0]
    await world.settle()
    assert len(await world.search("text", limit=50)) == 20


async def test_a_batch_that_is_tried_again_is_the_same_batch(world: World) -> None:
    store = await world.store()
    files = [Attachment((await world.upload(text)).id) for text in ("one", "two")]
    first, _ = await world.ingest.attach_batch(CALLER, store.id, files)
    again, written = await world.ingest.attach_batch(CALLER, store.id, files[::-1])
    assert again == first
    assert len(written.documents) == await world.database.view(jobs.depth) == 2
    await world.settle()
    again, _ = await world.ingest.attach_batch(CALLER, store.id, files)
    _, counts = await world.catalog.batch(CALLER, store.id, again.id)
    assert (again.id, counts.completed, counts.total) == (first.id, 2, 2)


async def test_another_set_of_files_is_another_batch(world: World) -> None:
    store = await world.store()
    files = [Attachment((await world.upload(text)).id) for text in ("one", "two", "three")]
    first, _ = await world.ingest.attach_batch(CALLER, store.id, files[:2])
    for others in (files[:1], files):
        batch, _ = await world.ingest.attach_batch(CALLER, store.id, others)
        assert batch.id != first.id


async def test_an_upload_that_is_tried_again_is_the_same_file_and_the_same_document(world: World) -> None:
    store = await world.store()
    sent = [
        await world.catalog.add_file(CALLER, "a.txt", "assistants", b"text", is_retry=is_retry)
        for is_retry in (False, True, True)
    ]
    assert len({file.id for file in sent}) == 1
    for file in sent:
        await world.ingest.attach(CALLER, store.id, [Attachment(file.id)])
    assert await count(world, "documents") == 1
    await world.settle()
    await world.ingest.attach(CALLER, store.id, [Attachment(sent[0].id)])
    assert await world.database.view(jobs.depth) == 0
    assert len(await world.catalog.documents(CALLER, store.id, Page())) == 1


async def test_a_text_that_was_cancelled_comes_in_when_it_is_sent_again(world: World) -> None:
    await world.store()
    row = (await world.upsert("a", "tall tower")).documents[0]
    await world.queue.cancel(CALLER, f"job_{row.id}")
    again = (await world.upsert("a", "tall tower")).documents[0]
    assert again.id != row.id
    await world.settle()
    assert await world.search("tower") == ["tall tower"]
