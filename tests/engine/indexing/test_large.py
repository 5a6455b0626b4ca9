"""Large documents: slice by slice, what is done is on disk, nothing is seen too early, and nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from engine.conftest import CALLER, World
from ragagent.engine.indexing import indexer as indexing
from ragagent.engine.indexing import large, settling, slices
from ragagent.errors import Upstream
from ragagent.providers.endpoint import Refused, Transient
from ragagent.store import jobs
from ragagent.store.database import Transaction
from ragagent.types import Document, Job

pytestmark = pytest.mark.anyio

PIECES = 60
TEXT = "\n\n".join(f"Paragraph {n} tells of tower number{n}. " + "Words follow here. " * 90 for n in range(PIECES))


class Killed(BaseException):
    """As if the process ended here: nothing of ours may catch it."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(indexing, "LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(settling, "POSTPONE_SECONDS", 0.0)
    monkeypatch.setattr(large, "TURN_SECONDS", 0.0)  # one slice a turn
    take_slices_of(16, monkeypatch)


def take_slices_of(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "FIRST", size)
    monkeypatch.setattr(slices, "LARGEST", size)


@pytest.fixture
async def document(world: World) -> Document:
    await world.store()
    return await world.attach(TEXT, "large.txt")


async def seen(world: World, row: Document) -> Job:
    return await world.queue.job(CALLER, f"job_{row.id}")


def failing(texts_taken: int, error: BaseException) -> Callable[[Sequence[str]], None]:
    """Let so many texts through, then raise."""
    left = texts_taken

    def check(texts: Sequence[str]) -> None:
        nonlocal left
        if left <= 0:
            raise error
        left -= len(texts)

    return check


async def test_a_large_document_shows_how_far_it_is_and_is_seen_when_it_is_whole(
    world: World, document: Document
) -> None:
    percents = []
    while (job := await seen(world, document)).status in ("queued", "embedding"):
        assert await world.search("tower") == []
        percents.append(job.percent)
        await world.indexer.step()
    assert len(percents) > 2
    assert percents == sorted(percents)
    assert 0.0 < percents[-1] < 100.0
    await world.settle()
    assert (await seen(world, document)).status == "completed"
    found = (await world.retrieve("number7")).evidence
    assert found[0].text == TEXT[found[0].start : found[0].end]
    assert all(len(batch) <= 16 for batch in world.embedder.batches)


async def test_a_kill_costs_a_slice_and_parses_nothing_again(
    world: World, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_slices_of(4, monkeypatch)
    parsed: list[str] = []
    world.parser.check = parsed.append
    for _ in range(6):  # Each time it dies after one more slice: more deaths than a document has attempts.
        world.embedder.check = failing(1, Killed())
        with pytest.raises(Killed):
            await world.settle()
        await world.restart_indexer()
    job = await seen(world, document)
    assert job.chunks_done > 16
    world.embedder.check = lambda texts: None
    world.embedder.batches.clear()
    await world.settle()
    assert sum(map(len, world.embedder.batches)) == job.chunks_total - job.chunks_done
    assert (await seen(world, document)).status == "completed"
    assert parsed == ["large.txt"]


async def test_a_document_that_kills_again_and_again_in_one_place_fails(world: World, document: Document) -> None:
    deaths = 0

    def die(texts: Sequence[str]) -> None:
        nonlocal deaths
        if any("number50" in text for text in texts):
            deaths += 1
            raise Killed

    world.embedder.check = die
    for _ in range(10):
        try:
            await world.settle()
            break
        except Killed:
            await world.restart_indexer()
    job = await seen(world, document)
    assert (job.status, job.error_message, deaths) == ("failed", "The indexer died 3 times on this document.", 3)


async def test_an_embedder_that_goes_away_in_mid_document_costs_nothing(world: World, document: Document) -> None:
    world.embedder.check = failing(32, Upstream("Cannot be reached."))
    for _ in range(8):
        await world.indexer._ingest()
    job = await seen(world, document)
    assert (job.status, job.chunks_done, job.attempts) == ("queued", 32, 0)
    assert job.error_message == "Cannot be reached."
    world.embedder.check = lambda texts: None
    await world.settle()
    assert (await seen(world, document)).status == "completed"


@pytest.mark.parametrize(
    "error", [Refused("It answered 400: too long.", 400, "too long"), Transient("It answered 500.")]
)
async def test_a_document_with_a_text_that_is_not_taken_fails_and_the_queue_goes_on(
    world: World, document: Document, error: Upstream
) -> None:
    await world.upsert("small", "small tower")

    def check(texts: Sequence[str]) -> None:
        if any("number50" in text for text in texts):
            raise error

    world.embedder.check = check
    for _ in range(100):
        await world.indexer.step()
    job = await seen(world, document)
    assert (job.status, error.message in (job.error_message or "")) == ("failed", True)
    assert await world.search("small tower") == ["small tower"]


async def test_small_documents_do_not_wait_for_a_large_one(world: World, document: Document) -> None:
    await world.store("other")
    await world.indexer._ingest()
    await world.upsert("small", "small tower", store="other")
    await world.indexer.step()
    assert await world.search("tower", ["other"]) == ["small tower"]
    assert (await seen(world, document)).status == "queued"


async def test_a_cancel_drops_what_is_staged(world: World, document: Document) -> None:
    await world.indexer._ingest()
    assert (await seen(world, document)).chunks_done > 0
    assert (await world.queue.cancel(CALLER, f"job_{document.id}")).status == "cancelled"
    await world.settle()

    def left(tx: Transaction) -> list[int]:
        tables = ("chunks", "staged_chunks", "staged_vectors", "jobs")
        return [int(tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables]

    assert await world.database.view(left) == [0, 0, 0, 0]


async def test_a_cancel_in_mid_slice_is_heeded(world: World, document: Document) -> None:
    def cancel(texts: Sequence[str]) -> None:
        with world.database.write() as tx:
            tx.execute("DELETE FROM jobs")
            tx.execute("UPDATE documents SET status = 'cancelled'")

    world.embedder.check = cancel
    await world.settle()
    assert (await seen(world, document)).status == "cancelled"
    assert len(world.embedder.batches) == 1


async def test_vectors_of_another_model_are_not_used(world: World, document: Document) -> None:
    await world.indexer._ingest()
    world.embedder.model = "newer"
    with world.database.write() as tx:
        tx.execute("UPDATE vector_stores SET model = 'newer'")
    world.embedder.batches.clear()
    await world.settle()
    job = await seen(world, document)
    assert job.status == "completed"
    assert sum(map(len, world.embedder.batches)) == job.chunks_total


async def test_a_store_of_a_model_that_is_no_longer_configured_fails_it(world: World, document: Document) -> None:
    await world.indexer._ingest()
    world.embedder.model = "newer"
    await world.settle()
    assert "'bag-of-words'" in ((await seen(world, document)).error_message or "")


async def test_a_cancel_and_a_retry_in_mid_slice_begin_anew(world: World, document: Document) -> None:
    await world.indexer._ingest()

    def again(texts: Sequence[str]) -> None:
        world.embedder.check = lambda texts: None
        with world.database.write() as tx:
            jobs.cancel(tx, document.id)
            jobs.again(tx, document.id)

    world.embedder.check = again
    await world.settle()
    assert (await seen(world, document)).status == "completed"
    _, _, texts = await world.catalog.document_text(CALLER, document.store_id, document.file_id)
    assert "number0." in texts[0]
    assert sum("tells of tower" in text for text in texts) == PIECES
