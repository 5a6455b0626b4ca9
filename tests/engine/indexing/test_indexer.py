"""The indexer: what is queued becomes findable, a document's trouble is its own, and no crash loses or doubles any."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from engine.conftest import CALLER, World
from fakes import BagOfWords
from ragagent.engine.indexing import drafting, settling
from ragagent.engine.indexing import indexer as indexing
from ragagent.engine.indexing.indexer import Indexer
from ragagent.errors import StorageFull, Unavailable, Upstream
from ragagent.providers.base import Vectors
from ragagent.providers.embedders import Embedders
from ragagent.providers.endpoint import Refused, Transient
from ragagent.store import documents, jobs
from ragagent.types import Document, Page

pytestmark = pytest.mark.anyio


class Killed(BaseException):
    """As if the process ended here: nothing of ours may catch it."""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(settling, "POSTPONE_SECONDS", 0.0)


async def states(world: World) -> dict[str, str]:
    """Return each document's state as its user sees it."""
    rows = await world.catalog.documents(CALLER, "docs", Page(100))
    files = {row.file_id: await world.catalog.file(CALLER, row.file_id) for row in rows}
    seq = await world.catalog.visible_seq((await world.catalog.store(CALLER, "docs")).id)
    return {files[row.file_id].filename: row.visible_status(seq) for row in rows}


async def attempts(world: World) -> list[int]:
    return await world.database.view(
        lambda tx: [row[0] for row in tx.execute("SELECT attempts FROM jobs ORDER BY seq")]
    )


async def failure(world: World, row: Document) -> tuple[str | None, str | None]:
    found = await world.document(row)
    assert found.status == "failed"
    return found.error_code, found.error_message


async def test_what_is_written_is_found_after_a_step(world: World) -> None:
    await world.store()
    await world.upsert("a", "The tower is 330 metres tall.")
    await world.attach("铁塔高330米。", "tower.txt")
    assert await world.indexer.step()
    assert (await world.search("tall tower"))[0] == "The tower is 330 metres tall."
    assert (await world.search("铁塔"))[0] == "铁塔高330米。"
    assert not await world.indexer.step()


async def test_evidence_points_into_the_parsed_text(world: World) -> None:
    await world.store()
    text = "\n\n".join(f"Paragraph {n} tells of tower {n}. " + "Words follow. " * 60 for n in range(20))
    await world.attach(text, "long.txt")
    await world.settle()
    found = (await world.retrieve("tower 7")).evidence
    assert len(found) > 3
    assert all(text[item.start : item.end] == item.text for item in found)


async def test_markup_is_parsed_and_plain_text_is_not(world: World) -> None:
    await world.store()
    await world.attach("<p>tall <b>tower</b></p>", "a.html")
    await world.upsert("b.html", "<p>text of a tower</p>")
    await world.settle()
    assert sorted(await world.search("tower")) == ["<p>text of a tower</p>", "tall tower"]


# One document's trouble


async def test_a_document_that_cannot_be_read_fails_with_its_reason_and_holds_nobody_up(world: World) -> None:
    await world.store()
    bad = await world.attach(b"\x00\x01\x02" * 100, "bad.txt")
    await world.attach("tall tower", "good.txt")
    await world.settle()
    assert (await failure(world, bad))[0] == "invalid_file"
    assert await world.search("tower") == ["tall tower"]
    store = await world.catalog.store(CALLER, "docs")
    assert await world.ingest.visible(store, store.seq, 0)


async def test_a_document_without_text_fails(world: World) -> None:
    await world.store()
    row = await world.attach("<p> </p>", "blank.html")
    await world.settle()
    assert (await failure(world, row))[0] == "invalid_file"


async def test_a_document_deleted_while_it_is_ingested_hurts_nobody(world: World) -> None:
    await world.store()
    await world.attach("first tower", "first.txt")
    doomed = await world.attach("doomed tower", "doomed.txt")

    def delete_the_other(filename: str) -> None:
        with world.database.write() as tx:
            documents.remove_file(tx, doomed.file_id)

    world.parser.check = delete_the_other
    await world.settle()
    assert await world.search("tower") == ["first tower"]


async def test_a_document_removed_while_it_is_embedded_is_not_found(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "doomed tower")

    def remove(texts: Sequence[str]) -> None:
        with world.database.write() as tx:
            (row,) = documents.versions(tx, store.id, "a")
            documents.remove(tx, row)

    world.embedder.check = remove
    await world.indexer.step()
    assert await world.database.view(jobs.depth) == 0
    world.embedder.check = lambda texts: None
    assert await world.search("tower") == []


async def test_a_document_that_kills_the_indexer_fails_alone(world: World) -> None:
    await world.store()
    deaths = 0

    def die(filename: str) -> None:
        nonlocal deaths
        if filename == "killer.txt":
            deaths += 1
            raise Killed

    world.parser.check = die
    await world.attach("first tower", "first.txt")
    killer = await world.attach("killer tower", "killer.txt")
    await world.attach("last tower", "last.txt")
    for _ in range(20):
        try:
            await world.settle()
            break
        except Killed:
            await world.restart_indexer()
    assert deaths == drafting.MAX_ATTEMPTS
    assert await failure(world, killer) == ("server_error", "The indexer died 3 times on this document.")
    assert await states(world) == {"first.txt": "completed", "killer.txt": "failed", "last.txt": "completed"}


async def test_a_document_of_another_embedding_fails_and_says_so(world: World) -> None:
    await world.store()
    row = (await world.upsert("a", "text")).documents[0]
    world.embedder.dimension = 64
    await world.settle()
    code, message = await failure(world, row)
    assert "'bag-of-words' (32), and there is no such embedder, only 'bag-of-words' (64)" in (message or "")
    assert code == "embedder_not_configured"


async def test_a_document_that_the_embedder_refuses_fails_alone(world: World) -> None:
    await world.store()

    def refuse(texts: Sequence[str]) -> None:
        if any("long" in text for text in texts):
            raise Refused("The model endpoint answered 400: too long.", 400, "too long")

    world.embedder.check = refuse
    for name in ("a", "long", "b"):
        await world.upsert(name, f"{name} tower")
    await world.settle()
    assert await states(world) == {"a": "completed", "long": "failed", "b": "completed"}
    assert sorted(await world.search("tower")) == ["a tower", "b tower"]


async def test_a_mistake_of_ours_on_one_document_does_not_stop_the_queue(world: World) -> None:
    await world.store()

    def fail(filename: str) -> None:
        if filename == "odd.txt":
            raise ZeroDivisionError

    world.parser.check = fail
    for name in ("a.txt", "odd.txt", "b.txt"):
        await world.attach(f"{name} tower", name)
    await world.settle()
    assert await states(world) == {"a.txt": "completed", "odd.txt": "failed", "b.txt": "completed"}


async def test_a_document_with_which_the_embedder_breaks_fails_alone(world: World) -> None:
    await world.store()

    def crash(texts: Sequence[str]) -> None:
        if any("odd" in text for text in texts):
            raise Transient("The model endpoint answered 500.")

    world.embedder.check = crash
    for name in ("a", "odd", "b"):
        await world.upsert(name, f"{name} tower")
    for _ in range(20):
        await world.indexer.step()
    assert await states(world) == {"a": "completed", "odd": "failed", "b": "completed"}


# Trouble that is not the documents'


@pytest.mark.parametrize(
    "trouble",
    [Upstream("The model endpoint cannot be reached."), Refused("It answered 404: no such model.", 404, "no model")],
)
async def test_an_embedder_that_is_down_leaves_all_queued_and_uncounted(world: World, trouble: Upstream) -> None:
    await world.store()

    def down(texts: Sequence[str]) -> None:
        raise trouble

    for name in ("a", "b"):
        await world.upsert(name, f"{name} tower")
    world.embedder.check = down
    for _ in range(5):
        assert not await world.indexer._ingest()
    assert await attempts(world) == [0, 0]
    world.embedder.check = lambda texts: None
    await world.settle()
    assert await states(world) == {"a": "completed", "b": "completed"}


async def test_an_embedder_that_is_down_does_not_hold_up_what_needs_none(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "tower")
    await world.settle()
    written, _ = await world.ingest.remove(CALLER, "docs", ["a"])
    await world.store("other")

    def down(texts: Sequence[str]) -> None:
        raise Upstream("Down.")

    world.embedder.check = down
    await world.upsert("b", "text", store="other")
    await world.indexer.step()
    assert await world.ingest.visible(store, written.seq, 0)


class Gated:
    """An embedder that waits at a gate, as a slow one does."""

    def __init__(self, inner: BagOfWords) -> None:
        self.model, self.dimension, self.is_remote = inner.model, inner.dimension, inner.is_remote
        self.asked, self.gate = anyio.Event(), anyio.Event()
        self._inner = inner

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.set()
        await self.gate.wait()
        return await self._inner.embed(texts)

    async def aclose(self) -> None:
        pass


def slow(world: World) -> Gated:
    """Give the world an indexer whose embedder is slow."""
    embedder = Gated(world.embedder)
    world.indexer = Indexer(world.database, world.publisher, world.parser, Embedders(embedder))
    return embedder


async def test_a_slow_embedder_holds_up_neither_a_delete_nor_what_is_stored(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "old tower")
    await world.settle()
    embedder = slow(world)
    other = await world.store("other")
    await world.upsert("b", "text", store="other")
    with anyio.fail_after(20):
        assert await world.indexer.step()
        await embedder.asked.wait()
        written, _ = await world.ingest.remove(CALLER, "docs", ["a"])
        assert await world.indexer.step()
        assert await world.ingest.visible(store, written.seq, 0)
        embedder.gate.set()
        await world.settle()
    assert await world.ingest.visible(other, (await world.catalog.store(CALLER, "other")).seq, 0)


async def test_who_leaves_in_mid_call_counts_nothing_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "CLOSE_SECONDS", 0.0)
    await world.store()
    await world.upsert("a", "tower")
    embedder = slow(world)
    await world.indexer.step()
    await embedder.asked.wait()
    assert await attempts(world) == [1]
    await world.indexer.close()
    await world.indexer.close()
    assert await attempts(world) == [0]


async def test_who_leaves_waits_a_moment_for_what_is_nearly_done(world: World) -> None:
    await world.store()
    await world.upsert("a", "tower")
    embedder = slow(world)
    await world.indexer.step()
    await embedder.asked.wait()
    embedder.gate.set()
    await world.indexer.close()
    assert await world.database.view(jobs.depth) == 0


def test_a_pause_grows_and_is_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "FIRST_PAUSE_SECONDS", 0.5)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pause = indexing.Pause()
    assert not pause.is_on
    assert [pause.begin(None) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pause.begin(45) == 45
    for clock[0], is_on in ((144.0, True), (146.0, False)):
        assert pause.is_on == is_on
    pause.end()
    assert pause.begin(None) == 0.5
    assert pause.begin(1e9) == indexing.LONGEST_RETRY_AFTER_SECONDS


async def test_an_embedder_in_a_pause_is_left_alone_and_the_job_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store()
    await world.settle()
    row = (await world.upsert("a", "tower")).documents[0]

    def busy(texts: Sequence[str]) -> None:
        raise Transient("The model endpoint answered 429.", retry_after=60)

    world.embedder.check = busy
    for _ in range(3):
        assert not await world.indexer.step()
    assert len(world.embedder.batches) == 1
    job = await world.queue.job(CALLER, f"job_{row.id}")
    assert (job.status, job.attempts, job.error_message) == ("queued", 0, "The model endpoint answered 429.")


@pytest.mark.parametrize("trouble", [Unavailable("No process."), StorageFull("Full.")])
async def test_a_machine_in_trouble_leaves_all_queued_and_uncounted(
    world: World, trouble: Unavailable | StorageFull
) -> None:
    await world.store()
    await world.attach("tall tower")

    def fail(filename: str) -> None:
        raise trouble

    world.parser.check = fail
    for _ in range(5):
        try:
            await world.indexer._ingest()
        except StorageFull:
            pass
    assert await attempts(world) == [0]
    world.parser.check = lambda filename: None
    await world.settle()
    assert await world.search("tower") == ["tall tower"]


async def test_who_leaves_gives_back_what_is_not_begun(world: World) -> None:
    await world.store()
    for name in ("a.txt", "b.txt", "c.txt"):
        await world.attach(f"{name} tower", name)

    def leave(filename: str) -> None:
        world.is_leaving = filename == "b.txt"

    world.parser.check = leave
    await world.indexer.step()
    assert await attempts(world) == [0]
    # Not shown yet either: a reader that saw c.txt's seq would expect all before it.
    assert await states(world) == {"a.txt": "completed", "b.txt": "completed", "c.txt": "in_progress"}


# Crashes

CHILD = Path(__file__).with_name("indexer_child.py")


@pytest.mark.parametrize("point", ["parsed", "embedded", "stored", "appended", "committed", "published"])
async def test_a_kill_at_any_point_loses_and_doubles_nothing(world: World, point: str) -> None:
    store = await world.store()
    await world.upsert("old", "first tower")
    await world.settle()
    await world.upsert("old", "second tower")
    await world.upsert("new", "third tower")
    gone = await world.upsert("gone", "fourth tower")
    await world.publisher.close()
    command = [sys.executable, str(CHILD), str(world.root), point]
    child = await anyio.run_process(command, check=False)
    assert (child.returncode, child.stderr) == (9, b"")

    # Whoever reads now sees the old version or the new one, and never both.
    assert sum(text in ("first tower", "second tower") for text in await world.search("tower")) == 1
    await world.ingest.remove(CALLER, "docs", ["gone"])
    await world.restart_indexer()
    await world.settle()
    assert sorted(await world.search("tower")) == ["second tower", "third tower"]
    with world.searchers.pin(store.id) as searcher:
        assert searcher.rows == 2
        assert searcher.seq > gone.seq
    assert await world.database.view(jobs.depth) == 0
