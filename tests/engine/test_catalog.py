"""Stores and files as one caller may see and change them."""

from __future__ import annotations

import pytest

from engine.conftest import CALLER, World
from fakes import BagOfWords
from ragagent.engine.catalog import Catalog, Chunking
from ragagent.engine.ingest import Attachment
from ragagent.errors import Conflict, Forbidden, Invalid, NotFound
from ragagent.providers.embedders import Embedders
from ragagent.types import Caller, Page

pytestmark = pytest.mark.anyio


def bound(*stores: str, key_id: str = "k1") -> Caller:
    return Caller(key_id=key_id, stores=frozenset(stores))


async def test_a_new_store_has_the_embedders_space_and_its_own_chunking(world: World) -> None:
    plain = await world.catalog.create_store(CALLER, "a", {"k": "v"}, None)
    cut = await world.catalog.create_store(CALLER, "b", {}, Chunking(200, 50))
    assert (plain.model, plain.dimension, plain.chunk_tokens, plain.metadata) == ("bag-of-words", 32, 400, {"k": "v"})
    assert (cut.chunk_tokens, cut.overlap_tokens) == (200, 50)
    assert await world.catalog.store(CALLER, "a") == await world.catalog.store(CALLER, plain.id) == plain


async def test_a_bound_key_sees_its_stores_and_creates_none(world: World) -> None:
    mine, theirs = await world.store("mine"), await world.store("theirs")
    who = bound(mine.id)
    assert await world.catalog.stores(who, Page()) == [mine]
    assert await world.catalog.store(who, "mine") == mine
    for refused in (theirs.id, "theirs", "nowhere"):
        with pytest.raises(NotFound, match=f"'{refused}' does not exist"):
            await world.catalog.store(who, refused)
    with pytest.raises(Forbidden):
        await world.catalog.create_store(who, "new", {}, None)


async def test_another_tenant_sees_nothing(world: World) -> None:
    store, file = await world.store(), await world.upload("text")
    stranger = Caller("other")
    with pytest.raises(NotFound):
        await world.catalog.delete_store(stranger, store.id)
    with pytest.raises(NotFound):
        await world.catalog.delete_file(stranger, file.id)
    assert await world.catalog.stores(stranger, Page()) == []
    assert await world.catalog.files(stranger, None, Page()) == []


async def test_stores_by_name_come_once_each_in_the_order_asked(world: World) -> None:
    a, b = await world.store("a"), await world.store("b")
    assert await world.catalog.stores_named(CALLER, ["b", "a", "b"]) == [b, a]


async def test_an_update_returns_what_stands_now(world: World) -> None:
    row = await world.store("old")
    found = await world.catalog.update_store(CALLER, row.id, name="new", metadata={"a": "b"})
    assert (found.name, found.metadata, found.id) == ("new", {"a": "b"}, row.id)


async def test_a_deleted_store_is_gone_at_once(world: World) -> None:
    row = await world.store()
    await world.upsert("a", "text")
    _, seq = await world.catalog.delete_store(CALLER, row.id)
    assert seq > row.seq
    with pytest.raises(NotFound):
        await world.catalog.store(CALLER, row.id)


async def test_counts_follow_what_a_search_can_find(world: World) -> None:
    await world.store()
    await world.upsert("a", "text")
    store = await world.catalog.store(CALLER, "docs")
    (before,) = await world.catalog.counts([store])
    await world.settle()
    (after,) = await world.catalog.counts([store])
    assert (before.in_progress, before.completed) == (1, 0)
    assert (after.in_progress, after.completed) == (0, 1)
    assert await world.catalog.visible_seq(store.id) == store.seq


async def test_an_upload_that_is_retried_is_stored_once(world: World) -> None:
    add = world.catalog.add_file
    first = await add(CALLER, "a.txt", "assistants", b"text", is_retry=False)
    assert await add(CALLER, "a.txt", "assistants", b"text", is_retry=True) == first
    assert (await add(CALLER, "a.txt", "assistants", b"text", is_retry=False)).id != first.id
    assert await world.catalog.file_content(CALLER, first.id) == (first, b"text")


async def test_an_empty_upload_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match=r"'a\.txt' is empty"):
        await world.upload("")


async def test_a_deleted_file_cannot_be_quoted_by_any_store(world: World) -> None:
    await world.store("one")
    await world.store("two")
    file = await world.upload("The tower is tall.")
    for name in ("one", "two"):
        await world.ingest.attach(CALLER, name, [Attachment(file.id)])
    await world.settle()
    assert await world.search("tower", ["one", "two"]) == ["The tower is tall."] * 2
    await world.catalog.delete_file(CALLER, file.id)
    assert await world.search("tower", ["one", "two"]) == []


async def test_a_bound_key_does_not_delete_a_file_out_of_a_store_that_is_not_its_own(world: World) -> None:
    mine, theirs = await world.store("mine"), await world.store("theirs")
    who = bound(mine.id)
    shared = await world.catalog.add_file(who, "a.txt", "assistants", b"text", is_retry=False)
    await world.ingest.attach(CALLER, theirs.id, [Attachment(shared.id)])
    with pytest.raises(Forbidden):
        await world.catalog.delete_file(who, shared.id)
    assert await world.catalog.file(CALLER, shared.id) == shared


async def test_a_document_is_found_in_its_store_alone(world: World) -> None:
    store, other = await world.store(), await world.store("other")
    row = await world.attach("text")
    assert await world.catalog.document(CALLER, store.id, row.file_id) == row
    with pytest.raises(NotFound, match=f"is not in vector store '{other.id}'"):
        await world.catalog.document(CALLER, other.id, row.file_id)


async def test_a_documents_text_is_what_its_chunks_hold(world: World) -> None:
    await world.store()
    row = await world.attach("Some text.", "notes.txt")
    await world.settle()
    _, filename, texts = await world.catalog.document_text(CALLER, row.store_id, row.file_id)
    assert (filename, texts) == ("notes.txt", ["Some text."])


async def test_documents_can_be_listed_by_batch_and_state(world: World) -> None:
    store = await world.store()
    files = [await world.upload(text) for text in ("a", "b")]
    batch, _ = await world.ingest.attach_batch(CALLER, store.id, [Attachment(file.id) for file in files])
    await world.attach("c")
    listed = await world.catalog.documents(CALLER, store.id, Page(order="asc"), batch_id=batch.id)
    assert [row.file_id for row in listed] == [file.id for file in files]
    assert await world.catalog.documents(CALLER, store.id, Page(), status="completed") == []
    found, counts = await world.catalog.batch(CALLER, store.id, batch.id)
    assert (found, counts.in_progress) == (batch, 2)
    with pytest.raises(NotFound, match="'vsfb_no' is not in"):
        await world.catalog.documents(CALLER, store.id, Page(), batch_id="vsfb_no")


@pytest.mark.parametrize("only", [BagOfWords(32, "other"), BagOfWords(64, "bag-of-words")])
async def test_vectors_of_two_models_are_not_compared(world: World, only: BagOfWords) -> None:
    store = await world.store()
    world.catalog.check_space(store)
    later = Catalog(world.database, world.searchers, Embedders(only), Chunking(400, 0))
    with pytest.raises(Conflict, match=r"'docs' holds vectors of 'bag-of-words' \(32\)"):
        later.check_space(store)
    assert await later.unserved() == ["docs"]


async def test_a_store_goes_on_with_its_model_when_another_becomes_the_default(world: World) -> None:
    old = await world.store()
    later = Catalog(
        world.database, world.searchers, Embedders(BagOfWords(8, "new"), [world.embedder]), Chunking(400, 0)
    )
    later.check_space(old)
    assert await later.unserved() == []
    new = await later.create_store(CALLER, "new", {}, None)
    assert (new.model, new.dimension) == ("new", 8)
