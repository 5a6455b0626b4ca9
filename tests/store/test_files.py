"""Rows of files: who sees them, which upload is a retry, and what goes with them."""

from __future__ import annotations

import hashlib

import pytest

from ragagent.errors import NotFound
from ragagent.store import documents, files
from ragagent.store.database import Database
from ragagent.types import Caller, Page
from store.conftest import CALLER, column, ingested, new_document, new_file, new_store

DATA = "中文 text".encode()


def test_a_file_comes_back_byte_for_byte(database: Database) -> None:
    with database.write() as tx:
        row = new_file(tx, DATA, filename="说明.txt")
    with database.read() as tx:
        assert files.find(tx, CALLER, row.id) == row
        assert files.content(tx, row.id) == DATA
        assert (row.bytes, row.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())


def test_the_content_of_a_file_that_is_gone_is_not_found(database: Database) -> None:
    with database.read() as tx, pytest.raises(NotFound, match="'file-gone'"):
        files.content(tx, "file-gone")


def test_a_file_is_its_tenants_alone(database: Database) -> None:
    with database.write() as tx:
        row = new_file(tx, caller=Caller("other"))
        assert files.find(tx, CALLER, row.id) is None
        assert files.listing(tx, CALLER, None, Page()) == []


def test_a_bound_key_sees_its_own_files_and_those_in_its_stores(database: Database) -> None:
    with database.write() as tx:
        mine, theirs = new_store(tx), new_store(tx)
        bound = Caller(key_id="k1", stores=frozenset([mine.id]))
        own = new_file(tx, caller=bound)
        in_mine, in_theirs, loose = new_file(tx), new_file(tx), new_file(tx)
        new_document(tx, mine, file=in_mine)
        new_document(tx, theirs, file=in_theirs)
        assert {row.id for row in files.listing(tx, bound, None, Page())} == {own.id, in_mine.id}
        assert [files.find(tx, bound, row.id) for row in (own, in_mine, in_theirs, loose)] == [own, in_mine, None, None]


def test_a_key_that_is_bound_to_nothing_sees_nothing_of_others(database: Database) -> None:
    with database.write() as tx:
        new_document(tx, new_store(tx))
        assert files.listing(tx, Caller(key_id="k", stores=frozenset()), None, Page()) == []


def test_a_listing_can_be_narrowed_to_a_purpose(database: Database) -> None:
    with database.write() as tx:
        new_file(tx)
        row = new_file(tx, purpose="batch")
        assert files.listing(tx, CALLER, "batch", Page()) == [row]


def test_only_the_same_upload_of_the_same_key_is_a_retry(database: Database) -> None:
    with database.write() as tx:
        row = new_file(tx, DATA)

        def retried(caller: Caller = CALLER, filename: str = "a.txt", purpose: str = "assistants", data: bytes = DATA):  # type: ignore[no-untyped-def]
            return files.find_retried(tx, caller, filename=filename, purpose=purpose, data=data)

        assert retried() == row
        assert retried(data=b"other") is None
        assert retried(filename="b.txt") is None
        assert retried(purpose="batch") is None
        assert retried(caller=Caller(key_id="k")) is None
        assert retried(caller=Caller("other")) is None


def test_an_upload_of_long_ago_is_no_retry(database: Database) -> None:
    with database.write() as tx:
        new_file(tx, DATA)
        tx.execute("UPDATE files SET created_at = created_at - ?", (files.RETRY_SECONDS + 1,))
        assert files.find_retried(tx, CALLER, filename="a.txt", purpose="assistants", data=DATA) is None


def test_a_discarded_file_stays_while_a_document_is_made_from_it(database: Database) -> None:
    with database.write() as tx:
        store, file = new_store(tx), new_file(tx)
        row = new_document(tx, store, file=file)
        files.discard(tx, file.id)
        assert files.find(tx, CALLER, file.id) == file
        documents.remove(tx, row)
        files.discard(tx, file.id)
        assert files.find(tx, CALLER, file.id) is None


def test_removing_a_file_removes_its_documents_everywhere(database: Database) -> None:
    with database.write() as tx:
        one, two, file = new_store(tx), new_store(tx), new_file(tx)
        ingested(tx, one, "a", file=file)
        ingested(tx, two, "b", file=file)
        documents.remove_file(tx, file.id)
        for table in ("files", "file_contents", "documents", "chunks", "jobs"):
            assert column(tx, f"SELECT count(*) FROM {table}") == [0]
        assert sorted(column(tx, "SELECT store_id FROM tombstones")) == sorted([one.id, two.id])
