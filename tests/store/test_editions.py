"""Rows of editions: what may be asked for when, and the one statement that switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragagent.errors import Conflict
from ragagent.store import chunks, cutover, documents, edition_vectors, editions, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition
from ragagent.types import VectorStore
from store.conftest import column, ingested, new_chunks, new_document, new_store

OTHER = ("model-b", 8)


def begun(tx: Transaction, store: VectorStore) -> Edition:
    return editions.reembed(tx, store, *OTHER, 0.5)


def filled(tx: Transaction, edition: Edition) -> Edition:
    """Give the edition all the vectors that it lacks."""
    lacking = [chunk_id for chunk_id, _ in edition_vectors.lacking(tx, edition, 100)]
    assert edition_vectors.give(tx, edition, lacking, np.ones((len(lacking), 8), np.float32))
    found = editions.find(tx, edition.store_id, "next", "kept")
    assert found is not None
    return found


def searched(tx: Transaction, store_id: str) -> Edition:
    row = stores.get(tx, store_id)
    assert row is not None
    return editions.searched(row)


def test_numbers_are_of_one_counter_and_never_come_back(database: Database) -> None:
    with database.write() as tx:
        one, two = new_store(tx), new_store(tx, "other")
        first, second = editions.rebuild(tx, one), editions.rebuild(tx, two)
        assert (first.index, second.index) == (f"{one.id}-1", f"{two.id}-2")
        assert editions.rebuild(tx, one) == first, "one that is under way is the answer"
        editions.renew(tx, first)
        renewed = editions.find(tx, one.id, "rebuild")
        assert renewed is not None
        assert renewed.number == 3
        assert [row.number for row in editions.spent(tx)] == [1]
        assert editions.directories(tx) == {one.id, two.id, first.index, second.index, renewed.index}
        assert editions.directories(tx, two.id) == {two.id, second.index}


def test_one_reembedding_at_a_time(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        with pytest.raises(Conflict, match=r"is of 'model-a' \(4\) already"):
            editions.reembed(tx, store, "model-a", 4, 1.0)
        begun(tx, store)
        with pytest.raises(Conflict, match="cut over to it, or abandon it first"):
            editions.reembed(tx, store, "model-c", 4, 1.0)


def test_a_new_model_gives_up_the_one_that_was_kept(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        edition = begun(tx, store)
        assert cutover.switch(tx, edition, store.seq)
        moved = stores.get(tx, store.id)
        assert moved is not None
        with pytest.raises(Conflict, match="roll back to them"):
            editions.reembed(tx, moved, "model-a", 4, 1.0)
        third = editions.reembed(tx, moved, "model-c", 4, 1.0)
        assert (third.slot, [row.model for row in editions.dropped(tx)]) == (0, ["model-a"])


def test_a_switch_changes_all_that_says_what_is_searched_and_keeps_the_other(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        seq = ingested(tx, store, "one", "two").seq
        edition = filled(tx, begun(tx, store))
        before = searched(tx, store.id)
        assert cutover.switch(tx, edition, seq)
        after = searched(tx, store.id)
        assert (after.model, after.dimension, after.slot, after.number) == (*OTHER, 1, edition.number)
        kept = editions.find(tx, store.id, "kept")
        assert kept is not None
        assert (kept.index, kept.model, kept.slot) == (before.index, "model-a", 0)
        assert not edition_vectors.lacks_any(tx, kept)
        assert not cutover.switch(tx, edition, seq), "it is searched already"
        ingested(tx, store, "three")
        assert edition_vectors.lacks_any(tx, kept)


@pytest.mark.parametrize("behind", ["shown", "vector", "vector of what waits for another document"])
def test_nothing_is_switched_to_that_shows_less(database: Database, behind: str) -> None:
    with database.write() as tx:
        store = new_store(tx)
        ingested(tx, store, "one")
        edition = filled(tx, begun(tx, store))
        if behind == "vector of what waits for another document":
            new_document(tx, store)
        if behind != "shown":
            ingested(tx, store, "two")
        watermark = jobs.watermark(tx, store.id)
        assert not cutover.switch(tx, edition, watermark - (behind == "shown"))
        assert searched(tx, store.id).number == 0
        assert cutover.switch(tx, filled(tx, edition) if behind != "shown" else edition, watermark)


def test_a_cutover_ends_the_rebuild_of_what_is_left(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        rebuild = editions.rebuild(tx, store)
        assert cutover.switch(tx, begun(tx, store), store.seq)
        assert editions.spent(tx)[0].number == rebuild.number
        assert not cutover.switch(tx, rebuild, store.seq)


def test_an_edition_shows_no_more_than_it_has_vectors_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.write() as tx:
        store = new_store(tx)
        first, second = ingested(tx, store, "one"), ingested(tx, store, "two")
        edition = begun(tx, store)
        assert edition_vectors.target(tx, editions.searched(store), second.seq) == second.seq
        assert edition_vectors.target(tx, edition, second.seq) == first.seq - 1
        (chunk, *_) = column(tx, "SELECT id FROM chunks")
        edition_vectors.give(tx, edition, [chunk], np.ones((1, 8), np.float32))
        (half,) = editions.listing(tx, store.id)
        assert edition_vectors.target(tx, half, second.seq) == second.seq - 1
        assert not edition_vectors.give(tx, edition, [chunk], np.ones((1, 8), np.float32)), "the cursor has moved"
        monkeypatch.setattr(edition_vectors, "MANY", 0)
        assert edition_vectors.target(tx, half, second.seq) == 0
        assert edition_vectors.target(tx, filled(tx, half), second.seq) == second.seq


def test_chunks_without_a_vector_in_the_slot_are_not_born_there(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = ingested(tx, store, "one", "two")
        edition = begun(tx, store)
        assert chunks.born(tx, store.id, 1, 0, row.seq, beyond=(0, 0), limit=9) == []
        filled(tx, edition)
        found = chunks.born(tx, store.id, 1, 0, row.seq, beyond=(0, 0), limit=9)
        assert [(each.text, each.vector.shape) for each in found] == [("one", (8,)), ("two", (8,))]


def test_an_erased_document_is_erased_from_both_slots(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = ingested(tx, store, "one")
        filled(tx, begun(tx, store))
        documents.remove(tx, row)
        assert column(tx, "SELECT chunk_id FROM vectors_0 UNION ALL SELECT chunk_id FROM vectors_1") == []


def test_slices_of_a_large_store_are_read_in_the_order_of_an_index(database: Database) -> None:
    plans: list[str] = []

    class Explained:
        def execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
            plans.extend(row["detail"] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
            return []

    with database.write() as tx:
        chunks.born(Explained(), "vs", 0, 0, 9, beyond=(0, 0), limit=5)  # type: ignore[arg-type]
        edition_vectors.lacking(Explained(), Edition("vs", 1, "next", 1, *OTHER), 5)  # type: ignore[arg-type]
    assert [plan for plan in plans if "TEMP B-TREE" in plan or plan.startswith("SCAN")] == []
    assert len(plans) == 3


def test_the_chunks_of_one_large_document_come_in_slices(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store)
        chunks.complete(tx, row.id, new_chunks(*"abcdefg"))
        found, beyond = "", (0, 0)
        while rows := chunks.born(tx, store.id, 0, 0, row.seq, beyond=beyond, limit=3):
            found, beyond = found + "".join(each.text for each in rows), (rows[-1].seq, rows[-1].id)
        assert found == "abcdefg"
        assert chunks.seq_after(tx, store.id, 0, row.seq, 3) == row.seq
        assert chunks.seq_after(tx, store.id, 0, row.seq, 30) == row.seq
