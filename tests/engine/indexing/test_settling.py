"""What becomes of documents is written down, of each by itself where not of all together."""

from __future__ import annotations

import numpy as np
import pytest

from engine.conftest import CALLER, World
from ragagent.engine.indexing.chunk import Piece
from ragagent.engine.indexing.drafting import MAX_ATTEMPTS, Draft
from ragagent.engine.indexing.settling import settle
from ragagent.errors import Invalid, RagagentError, StorageFull
from ragagent.store import backlog, chunks, jobs, staging
from ragagent.store.database import Transaction
from ragagent.store.jobs import Holder, JobRow
from ragagent.types import Job

pytestmark = pytest.mark.anyio


async def taken(world: World, *names: str) -> list[JobRow]:
    await world.store()
    for name in names:
        await world.upsert(name, "text")
    return await world.database.update(lambda tx: jobs.take(tx, Holder(1, 1), 9, 1000))


def whole(job: JobRow) -> Draft:
    return Draft(job, [Piece(0, "text", 0, 4)], np.eye(1, 32, dtype=np.float32))


async def job(world: World, row: JobRow) -> Job:
    return await world.queue.job(CALLER, f"job_{row.document_id}")


async def test_documents_are_stored_failed_and_counted(world: World) -> None:
    one, two = await taken(world, "a", "b")
    await settle(world.database, [whole(one), Draft(two, error=Invalid("No text.", code="invalid_file"))])
    assert [(await job(world, row)).status for row in (one, two)] == ["publishing", "failed"]
    assert (await world.database.view(backlog.rate)).documents > 0


async def test_a_fault_is_tried_again_later_and_fails_in_the_end(world: World) -> None:
    (row,) = await taken(world, "a")
    fault = RagagentError("It broke.", code="server_error")
    for _ in range(MAX_ATTEMPTS - 1):
        await settle(world.database, [Draft(row, fault=fault)])
        seen = await job(world, row)
        assert (seen.status, seen.error_message, seen.holder_pid) == ("queued", "It broke.", None)
        assert seen.due_at > 0
        await world.database.update(lambda tx: tx.execute("UPDATE jobs SET due_at = 0"))
        (row,) = await world.database.update(lambda tx: jobs.take(tx, Holder(1, 1), 9, 1000))
    await settle(world.database, [Draft(row, fault=fault)])
    seen = await job(world, row)
    assert (seen.status, seen.attempts) == ("failed", 3)
    assert seen.error_message == "It failed 3 times, the last time so: It broke."


async def test_one_that_cannot_be_stored_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = await taken(world, "a", "bad", "b")
    real = chunks.complete

    def complete(tx: object, document_id: int, new: object) -> bool:
        if document_id == rows[1].document_id:
            raise RagagentError("The database refused a statement: string or blob too big")
        return real(tx, document_id, new)  # type: ignore[arg-type]

    monkeypatch.setattr(chunks, "complete", complete)
    await settle(world.database, [whole(row) for row in rows])
    assert [(await job(world, row)).status for row in rows] == ["publishing", "queued", "publishing"]
    assert (await job(world, rows[1])).attempts == 1


async def test_a_full_disk_is_no_documents_fault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = await taken(world, "a")

    def full(*_: object) -> bool:
        raise StorageFull("Full.")

    monkeypatch.setattr(chunks, "complete", full)
    with pytest.raises(StorageFull):
        await settle(world.database, [whole(row)])
    assert (await job(world, row)).error_message is None


async def test_what_is_gone_meanwhile_is_dropped(world: World) -> None:
    (row,) = await taken(world, "a")
    await world.queue.cancel(CALLER, f"job_{row.document_id}")
    await settle(world.database, [whole(row)])
    assert (await job(world, row)).status == "cancelled"
    assert await world.database.view(backlog.rate) == backlog.Rate()


async def test_vectors_of_the_model_that_a_store_had_are_made_again(world: World) -> None:
    (row,) = await taken(world, "a")
    await world.database.update(lambda tx: tx.execute("UPDATE vector_stores SET model = 'newer'"))
    await settle(world.database, [whole(row)])
    seen = await job(world, row)
    assert (seen.status, seen.attempts) == ("queued", 0)


async def test_a_part_of_a_large_document_is_never_taken_for_the_whole(world: World) -> None:
    (row,) = await taken(world, "a")

    def stage(tx: Transaction) -> None:
        staging.put_pieces(tx, row, [(0, 0, 3, "one"), (1, 4, 7, "two")])
        staging.finish_pieces(tx, row, 2)
        staging.put_vectors(tx, row, 1, np.eye(1, 32, dtype=np.float32))  # and none of the first piece

    await world.database.update(stage)
    staged = await world.database.update(lambda tx: jobs.take_staged(tx, Holder(1, 1)))
    assert staged is not None
    await settle(world.database, [Draft(staged, is_staged=True)])
    assert (await job(world, row)).status == "queued"
    await world.settle()
    assert (await job(world, row)).status == "completed"
    assert await world.search("text") == ["text"]
