"""What was erased is noted in the transaction that erased it, whichever way it went."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from ragagent.store import chunks, documents, erasures, files, stores
from ragagent.store.database import Database, Transaction, last_seq, next_seq
from ragagent.store.erasures import Progress, Purge
from ragagent.types import Document, Erasure, VectorStore
from store.conftest import new_chunks, new_document, new_file, new_store


def noted(tx: Transaction) -> dict[str, tuple[int, int]]:
    return {row.store_id: (row.removed, row.replaced) for row in erasures.after(tx, 0)}


def completed(tx: Transaction, document: Document) -> None:
    assert chunks.complete(tx, document.id, new_chunks("text"))


def as_now(tx: Transaction, store: VectorStore) -> VectorStore:
    found = stores.get(tx, store.id)
    assert found is not None
    return found


def by_document(tx: Transaction, document: Document) -> None:
    documents.remove(tx, document)


def by_file(tx: Transaction, document: Document) -> None:
    documents.remove_file(tx, document.file_id)


@pytest.mark.parametrize("erase", [by_document, by_file])
def test_a_delete_dooms_all_that_was_read_before_it(
    database: Database, erase: Callable[[Transaction, Document], None]
) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx, "other")
        document = new_document(tx, store)
        new_document(tx, other)
        read_at = as_now(tx, store).seq
    with database.write() as tx:
        erase(tx, document)
        removed, replaced = noted(tx)[store.id]
        assert (read_at < removed, replaced) == (True, 0)
        assert as_now(tx, store).seq >= removed, "what is read from now on may be kept"
        assert set(noted(tx)) == {store.id}


def test_a_file_in_two_stores_is_erased_in_both(database: Database) -> None:
    with database.write() as tx:
        first, second = new_store(tx), new_store(tx, "second")
        file = new_file(tx)
        for store in (first, second):
            new_document(tx, store, file=file)
        documents.remove_file(tx, file.id)
        assert set(noted(tx)) == {first.id, second.id}
        for store in (first, second):
            assert noted(tx)[store.id][0] <= as_now(tx, store).seq


def test_a_newer_version_dooms_what_was_read_while_the_index_showed_the_older(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        completed(tx, new_document(tx, store, "a"))
        newer = new_document(tx, store, "a")
        assert noted(tx) == {}, "until it is ready, the older one is what there is"
        completed(tx, newer)
        assert noted(tx) == {store.id: (0, newer.seq)}
    with database.write() as tx:
        next_seq(tx)
        number = erasures.progress(tx).erased
        assert chunks.purge_replaced(tx, store.id, last_seq(tx), 10) == 1
        assert erasures.progress(tx).erased == number, "the minute later, its rows go: nobody can have read them"


def test_a_store_takes_all_along_and_stays_noted_when_its_rows_are_gone(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        for _ in range(3):
            new_document(tx, store)
        removed = stores.mark_deleted(tx, store.id)
        number = erasures.progress(tx).erased
        while not stores.erase(tx, store.id, 1):
            pass
        assert erasures.after(tx, 0) == [Erasure(number, "default", store.id, removed, 0)]


def test_old_stores_are_forgotten(database: Database) -> None:
    with database.write() as tx:
        old, new = new_store(tx), new_store(tx)
        stores.mark_deleted(tx, old.id)
        tx.execute("UPDATE erasures SET at = at - 36 * 86400")
        stores.mark_deleted(tx, new.id)
        assert set(noted(tx)) == {new.id}


def test_who_follows_is_told_each_store_once_and_nothing_twice(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx, "other", tenant="acme")
        of_store = [new_document(tx, store) for _ in range(3)]
        of_other = new_document(tx, other)
        documents.remove(tx, of_store[0])
        seen = erasures.progress(tx).erased
        documents.remove(tx, of_other)
        removed = [documents.remove(tx, document) for document in of_store[1:]]
    with database.read() as tx:
        first, second = erasures.after(tx, seen)
        assert (first.store_id, first.tenant) == (other.id, "acme")
        assert (second.store_id, second.removed) == (store.id, removed[-1])
        assert erasures.after(tx, second.number) == []
        assert erasures.progress(tx).erased == second.number


def test_what_is_rolled_back_was_not_erased(database: Database) -> None:
    with database.write() as tx:
        document = new_document(tx, new_store(tx))
    with contextlib.suppress(ZeroDivisionError), database.write() as tx:
        documents.remove(tx, document)
        assert noted(tx)
        raise ZeroDivisionError
    with database.read() as tx:
        assert (noted(tx), erasures.progress(tx).erased) == ({}, 0)


def test_other_writes_erase_nothing(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        document = new_document(tx, store)
        completed(tx, document)
        documents.set_attributes(tx, document, {"year": 2024})
        stores.update(tx, store.id, name="renamed", metadata=None)
        files.discard(tx, document.file_id)
        assert noted(tx) == {}


def test_the_last_purges_are_remembered(database: Database) -> None:
    with database.write() as tx:
        for number in range(1, 1201):
            assert erasures.add_purge(tx, f"rag:1:{number}") == number
        assert erasures.progress(tx) == Progress(0, 1200)
        assert erasures.purges_after(tx, 1198) == [Purge(1199, "rag:1:1199"), Purge(1200, "rag:1:1200")]
        assert erasures.purges_after(tx, 0)[0].number == 201


def test_following_looks_up_and_scans_nothing(database: Database) -> None:
    with database.read() as tx:
        for sql in (
            "SELECT * FROM erasures WHERE number > 5 ORDER BY number",
            "SELECT coalesce(max(number), 0) FROM purges",
            "SELECT number, prefix FROM purges WHERE number > 5 ORDER BY number",
        ):
            plan = [row["detail"] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert all(detail.startswith("SEARCH") for detail in plan), plan
