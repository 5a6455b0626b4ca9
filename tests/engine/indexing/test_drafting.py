"""From a job to its pieces: whose fault it is when there are none."""

from __future__ import annotations

import pytest

from engine.conftest import World
from ragagent.engine.indexing.drafting import Drafter, blamed
from ragagent.engine.indexing.slices import Unembeddable
from ragagent.errors import Damaged, RagagentError, StorageFull, Unavailable
from ragagent.store import jobs
from ragagent.store.jobs import Holder, JobRow

pytestmark = pytest.mark.anyio


async def a_job(world: World, text: str | bytes = "tall tower", filename: str = "a.txt") -> JobRow:
    await world.store()
    await world.attach(text, filename)
    (job,) = await world.database.update(lambda tx: jobs.take(tx, Holder(1, 1), 1, 100))
    return job


def drafter(world: World) -> Drafter:
    return Drafter(world.database, world.parser, world.embedders)


async def test_a_document_becomes_its_pieces(world: World) -> None:
    draft = await drafter(world).draft(await a_job(world))
    assert [piece.text for piece in draft.pieces] == ["tall tower"]
    assert (draft.error, draft.fault) == (None, None)


async def test_what_cannot_be_read_is_final(world: World) -> None:
    draft = await drafter(world).draft(await a_job(world, b"\x00\x01" * 100))
    assert draft.error is not None
    assert draft.error.code == "invalid_file"


@pytest.mark.parametrize("mistake", [ZeroDivisionError("secret text"), RagagentError("The database refused it.")])
async def test_a_mistake_of_ours_is_a_fault_of_this_attempt_and_shows_no_secret(
    world: World, mistake: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(filename: str) -> None:
        raise mistake

    job = await a_job(world)
    world.parser.check = fail
    draft = await drafter(world).draft(job)
    assert draft.fault is not None
    assert "secret" not in draft.fault.message
    assert draft.fault.code == "server_error"
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("trouble", [Unavailable("No process."), StorageFull("Full."), Damaged("Torn.")])
async def test_the_machines_trouble_is_nobodys_fault(world: World, trouble: RagagentError) -> None:
    def fail(filename: str) -> None:
        raise trouble

    job = await a_job(world)
    world.parser.check = fail
    with pytest.raises(type(trouble)):
        await drafter(world).draft(job)


async def test_who_is_to_blame_is_told_from_who_may_try_again(world: World) -> None:
    job = await a_job(world)
    final, passing = (blamed(job, Unembeddable("Too long.", is_final=is_final)) for is_final in (True, False))
    assert (final.error and final.error.code, final.fault) == ("invalid_file", None)
    assert (passing.error, passing.fault and passing.fault.code) == (None, "server_error")
