"""What is in hand is written down while it lasts, and a holder that is gone is told from one that works."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from engine.conftest import CALLER, World
from ragagent.engine.indexing import workbench
from ragagent.engine.indexing.workbench import LEASE_SECONDS, Workbench, is_stuck, started
from ragagent.errors import Unavailable
from ragagent.store import jobs
from ragagent.store.jobs import Work
from ragagent.types import Job

pytestmark = pytest.mark.anyio


async def held(world: World, bench: Workbench) -> Job:
    await world.store()
    written = await world.upsert("a", "text")
    taken = await world.database.update(lambda tx: jobs.take(tx, bench.holder, 1, 100))
    bench.hold(taken, "parsing")
    return await world.queue.job(CALLER, f"job_{written.documents[0].id}")


async def test_how_far_a_job_is_comes_to_disk_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "NOTE_SECONDS", 0.0)
    bench = Workbench(world.database)
    job = await held(world, bench)
    assert (job.status, job.holder_pid, bench.document_ids) == ("parsing", os.getpid(), [job.document_id])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.keep_beating)
        bench.note(Work(job.document_id, "embedding", 12))
        with anyio.fail_after(10):
            while (seen := await world.queue.job(CALLER, f"job_{job.document_id}")).status != "embedding":
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert (seen.chunks_done, seen.chunks_total, seen.percent) == (0, 12, 0.0)


async def test_a_heartbeat_goes_on_though_nothing_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(workbench, "BEAT_SECONDS", 0.0)
    bench = Workbench(world.database)
    job = await held(world, bench)
    assert job.beat_at is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.keep_beating)
        with anyio.fail_after(10):
            while ((await world.queue.job(CALLER, f"job_{job.document_id}")).beat_at or 0) <= job.beat_at:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def test_what_was_put_down_is_noted_no_more(world: World) -> None:
    bench = Workbench(world.database)
    job = await held(world, bench)
    bench.drop([job.document_id, 4711])
    bench.note(Work(job.document_id, "embedding", 2))
    assert bench.document_ids == []


async def test_a_database_that_is_busy_does_not_end_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Workbench(world.database)
    await held(world, bench)

    async def busy(*_: object) -> None:
        raise Unavailable("The database is busy.")

    monkeypatch.setattr(world.database, "update", busy)
    await bench._write_down()
    assert "The database is busy." in caplog.text


def a_job(**fields: Any) -> Job:
    mine = started(os.getpid())
    found = Job(
        1, "s", "f", "a", None, 1, "parsing", 0, 0, 1, 0, 0.0, 0.0, None, None, os.getpid(), mine, time.time(), 1
    )
    return dataclasses.replace(found, **fields)


def test_who_works_is_told_from_who_is_silent_or_gone() -> None:
    assert not is_stuck(a_job())
    assert not is_stuck(a_job(holder_pid=None, beat_at=None))
    assert is_stuck(a_job(beat_at=time.time() - LEASE_SECONDS - 1))
    assert is_stuck(a_job(holder_start=1))  # another process of the same pid
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert started(gone.pid) is None
    assert is_stuck(a_job(holder_pid=gone.pid, holder_start=5))
