"""Rows out of one database and into another: under their own ids, once, and the newer version wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ragagent.errors import Conflict
from ragagent.store import chunks, documents, files, jobs, stores, transfer
from ragagent.store.database import Database, Transaction
from ragagent.store.transfer import Moved
from ragagent.types import Caller, VectorStore
from store.conftest import DIMENSION, column, ingested, new_chunks, new_document, new_file, new_store

FIELDS = {"tenant": "default", "name": "docs", "metadata": {}, "model": "model-a", "dimension": DIMENSION}
CUT = {"chunk_tokens": 400, "overlap_tokens": 0}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "other.db")) as opened:
        yield opened


def moved(external_id: str | None = "a", data: bytes = b"text", **fields: object) -> Moved:
    given = {"file_id": f"file-{external_id or 'f'}", "filename": "a.txt", "purpose": "assistants", **CUT, **fields}
    return Moved(external_id=external_id, data=data, created_at=17, **{"attributes": {}, **given})  # type: ignore[arg-type]


def held(tx: Transaction, store: VectorStore) -> list[tuple[str, int, str | None, bytes]]:
    return [(status, n, one.external_id, one.data) for _, status, n, one in transfer.standing(tx, store)]


def test_everything_that_stands_comes_out_in_the_order_it_came(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ingested(tx, store, "one", "two", external_id="a", data=b"old")
        ingested(tx, store, "three", file=new_file(tx, b"uploaded"))
        new_document(tx, store, "queued", data=b"queued")
        ingested(tx, store, "new", external_id="a", data=b"new")
        ingested(tx, new_store(tx, "other"), "elsewhere")
        assert held(tx, store) == [
            ("completed", 1, None, b"uploaded"),
            ("in_progress", 0, "queued", b"queued"),
            ("completed", 1, "a", b"new"),
        ]


def test_of_one_external_id_one_version_counts(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ingested(tx, store, "good", external_id="a", data=b"good")
        bad = new_document(tx, store, "a", data=b"bad")
        assert held(tx, store) == [("in_progress", 0, "a", b"bad")], "the newest"
        chunks.fail(tx, bad.id, "invalid_file", "no")
        assert held(tx, store) == [("completed", 1, "a", b"good")], "... that can be read"
        only = new_document(tx, store, "b", data=b"hopeless")
        chunks.fail(tx, only.id, "invalid_file", "no")
        assert held(tx, store)[-1] == ("failed", 0, "b", b"hopeless")
        batch = documents.add_batch(tx, store.id)
        new_document(tx, store, file=new_file(tx), batch_id=batch.id)
        documents.cancel(tx, batch.id)
        assert len(held(tx, store)) == 2


def test_a_store_keeps_its_id_where_that_is_free(database: Database) -> None:
    with database.write() as tx:
        first = transfer.add_store(tx, "vs_mine", 17, **FIELDS, **CUT)
        assert (first.id, first.created_at, first.name) == ("vs_mine", 17, "docs")
        second = transfer.add_store(tx, "vs_mine", 18, **FIELDS, **CUT)
        assert second.id.startswith("vs_")
        assert second.id != "vs_mine"
        assert transfer.add_store(tx, None, 19, **FIELDS, **CUT).created_at == 19


def test_a_document_with_chunks_is_finished_at_once(database: Database, other: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        source = ingested(tx, store, "one", "two", external_id="a", attributes={"year": 2024}, data=b"one two")
        ((_, _, _, out),) = transfer.standing(tx, store)
        pieces = list(transfer.pieces(tx, source.id, store.slot))
    with other.write() as tx:
        target = new_store(tx)
        assert transfer.put(tx, target, out, pieces)
        assert jobs.depth(tx) == 0
        (row,) = documents.versions(tx, target.id, "a")
        assert (row.file_id, row.status, row.attributes) == (source.file_id, "completed", {"year": 2024})
        assert (row.created_at, row.seq) == (source.created_at, 2)
        assert files.content(tx, row.file_id) == b"one two"
        born = chunks.born(tx, target.id, 0, 0, 9, beyond=(0, 0), limit=9)
        assert [(one.text, one.vector.tobytes()) for one in born] == [(p.text, p.vector.tobytes()) for p in pieces]
        found = stores.find(tx, "default", target.id)
        assert found is not None
        assert found.seq == row.seq, "so that the indexer publishes it"


def test_a_document_without_chunks_is_queued(database: Database) -> None:
    with database.write() as tx:
        assert transfer.put(tx, new_store(tx), moved(), None)
        (job,) = jobs.take(tx, jobs.Holder(1, 1), 9, 999)
        assert (job.file_id, job.is_text) == ("file-a", True)


@pytest.mark.parametrize("external_id", ["a", None])
def test_what_is_there_already_is_passed_over(database: Database, external_id: str | None) -> None:
    with database.write() as tx:
        store = new_store(tx)
        assert transfer.put(tx, store, moved(external_id), new_chunks("text"))
        assert not transfer.put(tx, store, moved(external_id), new_chunks("text"))
        assert column(tx, "SELECT count(*) FROM documents") == [1]
        assert column(tx, "SELECT count(*) FROM files") == [1]


@pytest.mark.parametrize("change", [{"data": b"other"}, {"filename": "b.txt"}, {"attributes": {"a": 1}}])
def test_another_content_replaces_the_older_one(database: Database, change: dict[str, object]) -> None:
    with database.write() as tx:
        store = new_store(tx)
        transfer.put(tx, store, moved(), new_chunks("text"))
        newer = dataclasses.replace(moved(), **change)  # type: ignore[arg-type]
        assert transfer.put(tx, store, newer, new_chunks("text"))
        (row,) = documents.versions(tx, store.id, "a")
        assert row.file_id != "file-a", "the older version's file is still in use"
        assert len(documents.replaced(tx, store.id, "a")) == 1


def test_a_failed_document_is_tried_again(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        transfer.put(tx, store, moved(), None)
        chunks.fail(tx, documents.versions(tx, store.id, "a")[0].id, "invalid_file", "no")
        assert transfer.put(tx, store, moved(), new_chunks("text"))
        assert [row.status for row in documents.versions(tx, store.id, "a")] == ["completed"]


def test_a_cancelled_document_is_not_there(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        transfer.put(tx, store, moved(), None)
        (row,) = documents.versions(tx, store.id, "a")
        jobs.cancel(tx, row.id)
        assert transfer.put(tx, store, moved(), new_chunks("text"))
        assert documents.versions(tx, store.id, "a")[0].status == "completed"


def test_true_is_another_attribute_than_one(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        transfer.put(tx, store, dataclasses.replace(moved(), attributes={"n": 1}), new_chunks("text"))
        assert transfer.put(tx, store, dataclasses.replace(moved(), attributes={"n": True}), new_chunks("text"))


def test_an_uploaded_file_may_stand_in_two_stores_and_a_text_has_its_own(database: Database) -> None:
    with database.write() as tx:
        one, two = new_store(tx), new_store(tx, "two")
        for external_id in (None, "a"):
            assert transfer.put(tx, one, moved(external_id), None)
            assert transfer.put(tx, two, moved(external_id), None)
        assert documents.find(tx, two.id, "file-f") is not None
        assert documents.versions(tx, two.id, "a")[0].file_id != "file-a"


@pytest.mark.parametrize(("data", "tenant"), [(b"other", "default"), (b"text", "another")])
def test_a_file_id_that_stands_for_another_file_is_refused(database: Database, data: bytes, tenant: str) -> None:
    with database.write() as tx:
        files.add(tx, Caller(tenant), filename="x", purpose="assistants", data=data, file_id="file-f")
        with pytest.raises(Conflict, match="field 'file_id' is 'file-f'"):
            transfer.put(tx, new_store(tx), moved(None), None)
        assert column(tx, "SELECT count(*) FROM documents") == [0]
