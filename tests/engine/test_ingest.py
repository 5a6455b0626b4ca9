"""Documents in: what a write stores, what it replaces, and when a read sees it."""

from __future__ import annotations

import anyio
import pytest

from engine.conftest import CALLER, World
from ragagent.engine.catalog import Chunking
from ragagent.engine.ingest import Attachment, NewDocument, check_text
from ragagent.errors import Conflict, Invalid, NotFound
from ragagent.store import chunks, jobs
from ragagent.types import Caller, Comparison, Page

pytestmark = pytest.mark.anyio


async def queued(world: World) -> int:
    return await world.database.view(jobs.depth)


async def filenames(world: World) -> list[str]:
    return [file.filename for file in await world.catalog.files(CALLER, None, Page(100, order="asc"))]


async def test_what_is_acknowledged_is_stored_and_queued(world: World) -> None:
    await world.store()
    written = await world.upsert("a", "text")
    assert written.seq == written.documents[0].seq
    assert await queued(world) == 1
    assert (await world.document(written.documents[0])).status == "in_progress"


async def test_the_same_text_again_is_not_stored_again(world: World) -> None:
    await world.store()
    first = await world.upsert("a", "text", attributes={"n": 1})
    again = await world.upsert("a", "text", attributes={"n": 1})
    assert (again.seq, again.documents, await queued(world)) == (first.seq, first.documents, 1)
    await world.settle()
    again = await world.upsert("a", "text", attributes={"n": 1})
    assert (again.seq, await queued(world)) == (first.seq, 0)


@pytest.mark.parametrize("is_ingested", [True, False])
async def test_the_same_text_with_other_attributes_is_not_embedded_again(world: World, is_ingested: bool) -> None:
    store = await world.store()
    first = await world.upsert("a", "tower", attributes={"n": 1})
    await world.upsert("b", "tower b", attributes={"n": 2})
    if is_ingested:
        await world.settle()
    again = await world.upsert("a", "tower", attributes={"n": 2})
    assert [(row.id, row.attributes) for row in again.documents] == [(first.documents[0].id, {"n": 2})]
    assert again.seq > first.seq
    assert not await world.ingest.visible(store, again.seq, 0)
    await world.settle()
    assert await world.ingest.visible(store, again.seq, 0)
    assert sorted(text for batch in world.embedder.batches for text in batch) == ["tower", "tower b"]
    assert await world.search("tower", filter=Comparison("eq", "n", 2), limit=1) == ["tower"]


async def test_attributes_that_come_with_the_same_text_are_seen_before_any_publish(world: World) -> None:
    await world.store()
    await world.upsert("a", "tower", attributes={"n": 1})
    await world.settle()
    await world.upsert("a", "tower", attributes={"n": True})
    assert await world.search("tower", filter=Comparison("eq", "n", 1)) == []
    assert await world.search("tower", filter=Comparison("eq", "n", True)) == ["tower"]


async def test_one_call_may_bring_a_text_twice(world: World) -> None:
    await world.store()
    new = [NewDocument("a", "tower", attributes={"n": n}) for n in (1, 2)]
    written = await world.ingest.upsert(CALLER, "docs", new)
    await world.settle()
    assert await queued(world) == 0
    assert [item.attributes for item in (await world.retrieve("tower")).evidence] == [{"n": 2}]
    assert written.seq == (await world.catalog.store(CALLER, "docs")).seq


@pytest.mark.parametrize("change", [{"text": "other"}, {"title": "T"}])
async def test_another_text_or_title_is_a_new_version(world: World, change: dict[str, str]) -> None:
    await world.store()
    first = await world.upsert("a", "text", attributes={"n": 1})
    new = NewDocument(**{"external_id": "a", "text": "text", "attributes": {"n": 1}, **change})  # type: ignore[arg-type]
    written = await world.ingest.upsert(CALLER, "docs", [new])
    assert written.seq > first.seq


async def test_a_text_that_failed_is_tried_again(world: World) -> None:
    await world.store()
    first = await world.upsert("a", "text")
    world.embedder.model = "another"
    await world.settle()
    assert (await world.document(first.documents[0])).status == "failed"
    world.embedder.model = "bag-of-words"
    second = await world.upsert("a", "text")
    await world.settle()
    assert (await world.document(second.documents[0])).status == "completed"


async def test_the_last_of_several_versions_wins_whatever_the_indexer_has_done_meanwhile(world: World) -> None:
    await world.store()
    await world.upsert("a", "first tower")
    await world.upsert("a", "second tower")
    await world.settle()
    await world.upsert("a", "third tower")
    await world.settle()
    assert await world.search("tower") == ["third tower"]


async def test_a_reader_sees_the_old_version_until_the_new_one_is_published_whole(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "old tower")
    await world.settle()
    await world.upsert("a", "new tower")
    await world.indexer._ingest()  # In SQLite, and not in the index: where a crash would leave it.
    old = await world.retrieve("tower")
    assert [item.text for item in old.evidence] == ["old tower"]
    await world.settle()
    assert await world.search("tower") == ["new tower"]
    # Who searched before the publish still reads what was found then, and nothing beside it.
    hits = [hit for _, hit in old.found.hits]
    with world.database.read() as tx:
        assert [item.text for item in chunks.evidence(tx, store.id, hits, old.found.seqs[store.id])] == ["old tower"]


async def test_a_removed_text_is_gone_at_once_and_from_the_index_later(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "tall tower")
    await world.upsert("b", "small tower")
    await world.settle()
    written, found = await world.ingest.remove(CALLER, "docs", ["a", "nobody", "a"])
    assert found == ["a"]
    assert await world.search("tower") == ["small tower"]
    with world.searchers.pin(store.id) as searcher:
        assert searcher.rows == 2
    await world.settle()
    with world.searchers.pin(store.id) as searcher:
        assert (searcher.rows, searcher.seq) == (1, written.seq)
        assert len(searcher.search(None, ["tower"], candidates=9).lexical) == 1
    assert await filenames(world) == ["b"]


async def test_a_removed_text_takes_its_replaced_version_along(world: World) -> None:
    await world.store()
    await world.upsert("a", "old tower")
    await world.settle()
    await world.upsert("a", "new tower")
    await world.indexer._ingest()  # Readers still see the old one.
    await world.ingest.remove(CALLER, "docs", ["a"])
    assert await world.search("tower") == []
    assert await filenames(world) == []
    await world.settle()
    assert await world.search("tower") == []


async def test_a_text_that_is_removed_and_comes_again_is_found(world: World) -> None:
    await world.store()
    await world.upsert("a", "old tower")
    await world.settle()
    await world.ingest.remove(CALLER, "docs", ["a"])
    await world.upsert("a", "old tower")
    await world.settle()
    assert await world.search("tower") == ["old tower"]


async def test_removing_a_text_leaves_it_where_its_file_was_attached(world: World) -> None:
    mine, other = await world.store(), await world.store("other")
    written = await world.upsert("a", "shared tower")
    await world.ingest.attach(CALLER, other.id, [Attachment(written.documents[0].file_id)])
    await world.settle()
    # A key of the one store must not reach into the other.
    await world.ingest.remove(Caller(key_id="k", stores=frozenset([mine.id])), mine.id, ["a"])
    assert await world.search("tower") == []
    assert await world.search("tower", ["other"]) == ["shared tower"]


async def test_removing_nothing_is_already_visible(world: World) -> None:
    store = await world.store()
    await world.settle()
    written, found = await world.ingest.remove(CALLER, "docs", ["nobody"])
    assert found == []
    assert await world.ingest.visible(store, written.seq, 0)


async def test_a_detached_file_stays_a_file(world: World) -> None:
    store = await world.store()
    row = await world.attach("tall tower")
    await world.settle()
    await world.ingest.detach(CALLER, store.id, row.file_id)
    assert await world.search("tower") == []
    assert await filenames(world) == ["a.txt"]
    with pytest.raises(NotFound):
        await world.ingest.detach(CALLER, store.id, row.file_id)


async def test_attaching_again_changes_nothing(world: World) -> None:
    store = await world.store()
    file = await world.upload("text")
    once = [Attachment(file.id, {"n": 1}), Attachment(file.id, {"n": 2})]
    first = await world.ingest.attach(CALLER, store.id, once)
    again = await world.ingest.attach(CALLER, store.id, once)
    assert [row.attributes for row in first.documents] == [{"n": 1}]
    assert (again.seq, again.documents) == (first.seq, first.documents)
    assert await queued(world) == 1


async def test_an_attachment_may_be_cut_in_its_own_way(world: World) -> None:
    store = await world.store()
    file = await world.upload("word " * 2000)
    written = await world.ingest.attach(CALLER, store.id, [Attachment(file.id, {}, Chunking(100, 50))])
    await world.settle()
    _, _, texts = await world.catalog.document_text(CALLER, store.id, file.id)
    assert (written.documents[0].chunk_tokens, written.documents[0].overlap_tokens) == (100, 50)
    assert len(texts) > 25


async def test_a_batch_is_stored_whole_or_not_at_all(world: World) -> None:
    store = await world.store()
    file = await world.upload("text")
    with pytest.raises(NotFound, match="'file-gone'"):
        await world.ingest.attach_batch(CALLER, store.id, [Attachment(file.id), Attachment("file-gone")])
    assert await queued(world) == 0
    assert await world.catalog.documents(CALLER, store.id, Page()) == []


async def test_a_cancelled_batch_is_not_ingested(world: World) -> None:
    store = await world.store()
    file = await world.upload("tall tower")
    batch, _ = await world.ingest.attach_batch(CALLER, store.id, [Attachment(file.id)])
    await world.ingest.cancel(CALLER, store.id, batch.id)
    await world.settle()
    assert await world.search("tower") == []
    _, counts = await world.catalog.batch(CALLER, store.id, batch.id)
    assert (counts.cancelled, counts.total) == (1, 1)


async def test_attributes_can_be_changed_and_filters_see_it_at_once(world: World) -> None:
    store = await world.store()
    written = await world.upsert("a", "tower", attributes={"lang": "en"})
    await world.settle()
    changed = await world.ingest.set_attributes(CALLER, store.id, written.documents[0].file_id, {"lang": "zh"})
    assert changed.documents[0].attributes == {"lang": "zh"}
    assert (await world.retrieve("tower")).evidence[0].attributes == {"lang": "zh"}
    await world.settle()
    assert await world.ingest.visible(store, changed.seq, 0)


async def test_a_store_of_another_model_takes_no_documents_but_lets_go_of_them(world: World) -> None:
    store = await world.store()
    await world.upsert("a", "text")
    with world.database.write() as tx:
        tx.execute("UPDATE vector_stores SET model = 'older'")
    with pytest.raises(Conflict, match="'older'"):
        await world.upsert("b", "text")
    assert (await world.ingest.remove(CALLER, store.id, ["a"]))[1] == ["a"]


async def test_a_write_becomes_visible_to_who_waits_for_it(world: World) -> None:
    store = await world.store()
    written = await world.upsert("a", "text")
    assert not await world.ingest.visible(store, written.seq, 0.02)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.settle)
        assert await world.ingest.visible(store, written.seq, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), (" \n\t", "is empty"), ("a\x00b", "NUL character at offset 1"), ("x" * 11, "at most 10")],
)
def test_a_text_that_cannot_be_a_document_is_refused(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        check_text(text, max_chars=10, param="documents.0.text")
    assert caught.value.param == "documents.0.text"


def test_a_text_that_can_be_a_document_is_returned() -> None:
    assert check_text("x" * 10, max_chars=10, param="text") == "x" * 10
