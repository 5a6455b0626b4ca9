"""What filters let through, remembered: never stale, the same object while nothing changes, and bounded."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragagent.engine.retrieval import sieve as module
from ragagent.engine.retrieval.sieve import ENTRY_BYTES, Sieve
from ragagent.store import attributes, documents, filters, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import Attributes, Comparison, Compound, Document, Filter, VectorStore
from store.conftest import new_document, new_store

ONE = Comparison("eq", "a", 1)
MIB = 1024 * 1024


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> VectorStore:
    with database.write() as tx:
        return new_store(tx)


def add(database: Database, store: VectorStore, *rows: Attributes) -> list[Document]:
    with database.write() as tx:
        return [new_document(tx, store, attributes=row) for row in rows]


def change(database: Database, row: Document, changed: Attributes) -> None:
    with database.write() as tx:
        documents.set_attributes(tx, row, changed)


def scanned(tx: Transaction, store: VectorStore, tree: Filter) -> set[int]:
    sql, parameters = filters.clause(tree)
    rows = tx.execute(f"SELECT id FROM documents WHERE store_id = ? AND ({sql})", (store.id, *parameters))
    return {row[0] for row in rows}


def test_the_array_is_the_same_object_while_nothing_changes_in_it(database: Database, store: VectorStore) -> None:
    sieve = Sieve(database, MIB)
    one, two = add(database, store, {"a": 1}, {"a": 2})
    first = sieve.admitted(store.id, ONE)
    assert first.tolist() == [one.id]
    assert sieve.admitted(store.id, ONE) is first
    add(database, store, {"a": 2}, {})
    change(database, one, {"a": 1, "b": 1})
    change(database, two, {"a": 3})
    assert sieve.admitted(store.id, ONE) is first
    (three,) = add(database, store, {"a": 1.0})
    change(database, one, {})
    changed = sieve.admitted(store.id, ONE)
    assert changed.tolist() == [three.id]
    assert sieve.admitted(store.id, ONE) is changed


def test_the_array_cannot_be_written_to(database: Database, store: VectorStore) -> None:
    add(database, store, {"a": 1})
    with pytest.raises(ValueError, match="read-only"):
        Sieve(database, MIB).admitted(store.id, ONE)[0] = 0


def test_filters_that_python_takes_for_equal_are_told_apart(database: Database, store: VectorStore) -> None:
    sieve = Sieve(database, MIB)
    number, boolean = add(database, store, {"a": 1}, {"a": True})
    assert sieve.admitted(store.id, ONE).tolist() == [number.id]
    assert sieve.admitted(store.id, Comparison("eq", "a", True)).tolist() == [boolean.id]


def test_stores_are_told_apart(database: Database, store: VectorStore) -> None:
    sieve = Sieve(database, MIB)
    with database.write() as tx:
        other = new_store(tx)
    rows = [add(database, one, {"a": 1})[0] for one in (store, other)]
    assert [sieve.admitted(one.id, ONE).tolist() for one in (store, other)] == [[row.id] for row in rows]


def test_many_changes_are_looked_up_as_a_whole(
    database: Database, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEST_ROWS", (3, 3))
    sieve = Sieve(database, MIB)
    assert sieve.admitted(store.id, ONE).tolist() == []
    rows = add(database, store, *[{"a": 1}] * 10)
    assert sieve.admitted(store.id, ONE).tolist() == [row.id for row in rows]


def test_what_was_erased_does_not_pile_up(
    database: Database, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEST_ROWS", (4, 4))
    sieve = Sieve(database, MIB)
    for _ in range(20):
        (row,) = add(database, store, {"a": 1})
        found = sieve.admitted(store.id, ONE)
        assert row.id in found
        assert len(found) <= 7  # twice the one at first, as many as are tested, and the newest
        with database.write() as tx:
            documents.remove(tx, row)


def test_arrays_together_stay_below_the_bound_and_the_one_used_longest_ago_goes(
    database: Database, store: VectorStore
) -> None:
    add(database, store, *[{"a": n} for n in range(4)])
    sieve = Sieve(database, 3 * (ENTRY_BYTES + 8))
    trees = [Comparison("eq", "a", n) for n in range(4)]
    kept = [sieve.admitted(store.id, tree) for tree in trees[:3]]
    assert sieve.admitted(store.id, trees[0]) is kept[0]
    sieve.admitted(store.id, trees[3])
    assert sieve.admitted(store.id, trees[0]) is kept[0]
    assert sieve.admitted(store.id, trees[2]) is kept[2]
    assert sieve.admitted(store.id, trees[1]) is not kept[1]


def test_what_cannot_stay_pushes_nothing_out(database: Database, store: VectorStore) -> None:
    add(database, store, *[{"a": n} for n in range(1000)])
    sieve = Sieve(database, 2 * (ENTRY_BYTES + 8))
    kept = sieve.admitted(store.id, ONE)
    assert len(sieve.admitted(store.id, Comparison("gte", "a", 0))) == 1000
    assert sieve.admitted(store.id, ONE) is kept


def test_without_memory_nothing_is_kept_and_all_is_right(database: Database, store: VectorStore) -> None:
    (row,) = add(database, store, {"a": 1})
    sieve = Sieve(database, 0)
    first = sieve.admitted(store.id, ONE)
    assert first.tolist() == [row.id]
    assert sieve.admitted(store.id, ONE) is not first


def test_a_filter_is_known_from_the_first_question_on(database: Database, store: VectorStore) -> None:
    sieve = Sieve(database, 2 * ENTRY_BYTES + 8)
    (row,) = add(database, store, {"a": 1})
    assert [sieve.is_known(store.id, ONE) for _ in range(2)] == [False, True]
    assert sieve.admitted(store.id, ONE).tolist() == [row.id]
    two, three = (Comparison("eq", "a", n) for n in (2, 3))
    sieve.admitted(store.id, two)
    assert sieve.is_known(store.id, two)
    assert not sieve.is_known(store.id, three)
    assert not sieve.is_known(store.id, ONE), "pushed out"


def test_a_failure_is_not_remembered(database: Database, store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sieve = Sieve(database, MIB)
    (row,) = add(database, store, {"a": 1})
    with monkeypatch.context() as patched:
        patched.setattr(attributes, "matching", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            sieve.admitted(store.id, ONE)
    assert sieve.admitted(store.id, ONE).tolist() == [row.id]


def test_threads_see_every_write_that_was_committed_before_they_asked(database: Database, store: VectorStore) -> None:
    """Four read while one writes; each write is announced after its commit, with what must be seen from there on."""
    sieve = Sieve(database, MIB)
    trees = [ONE, Comparison("ne", "a", 1)]
    (row,) = add(database, store, {"a": 0})
    added = [row.id]
    wrong: list[object] = []
    done = threading.Event()

    def read(seed: int) -> None:
        choose = random.Random(seed)
        while not done.is_set():
            known = len(added)
            both = {int(one) for tree in trees for one in sieve.admitted(store.id, tree)}
            if not set(added[:known]) <= both:
                wrong.append((seed, known))
            choose.shuffle(trees.copy())

    readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for reader in readers:
        reader.start()
    for n in range(40):
        added.extend(row.id for row in add(database, store, {"a": n % 2}))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    with database.read() as tx:
        assert [set(sieve.admitted(store.id, tree).tolist()) for tree in trees] == [
            scanned(tx, store, tree) for tree in trees
        ]


# Random writes and questions, through two sieves as two workers have them.

KEYS = st.sampled_from(["a", "b"])
VALUES = st.sampled_from([0, 1, True, "1", 0.5])
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=2)
LEAVES = st.builds(Comparison, st.sampled_from(["eq", "ne", "gt", "lte"]), KEYS, VALUES) | st.builds(
    Comparison, st.sampled_from(["in", "nin"]), KEYS, st.lists(VALUES, max_size=3).map(tuple)
)
TREES = LEAVES | st.builds(
    Compound, st.sampled_from(["and", "or"]), st.lists(LEAVES, min_size=1, max_size=3).map(tuple)
)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 1), st.lists(ATTRIBUTES, min_size=1, max_size=4)),
    st.tuples(st.just("change"), st.integers(0, 99), ATTRIBUTES),
    st.tuples(st.just("remove"), st.integers(0, 99)),
    st.tuples(st.just("erase"), st.integers(0, 1)),
    st.tuples(st.just("ask"), st.integers(0, 1), st.integers(0, 2)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(TREES, min_size=3, max_size=3), st.lists(STEPS, max_size=25), st.sampled_from([(2, 2), (100, 100)]))
def test_it_lets_through_what_the_filter_says_now(
    trees: list[Filter], steps: list[tuple[Any, ...]], test_rows: tuple[int, int]
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(Database.open(Path(directory) / "x.db")) as database,
        closing(Database.open(Path(directory) / "x.db")) as another,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(module, "TEST_ROWS", test_rows)
        World(database, another, trees).live(steps)


class World:
    def __init__(self, database: Database, another: Database, trees: list[Filter]) -> None:
        self.database = database
        self.trees = trees
        self.workers = Sieve(database, MIB), Sieve(another, 2 * ENTRY_BYTES)
        with database.write() as tx:
            self.stores = [new_store(tx), new_store(tx)]
        self.rows: list[Document] = []

    def live(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
        for store in range(2):
            for tree in range(len(self.trees)):
                self.ask(store, tree)

    def add(self, store: int, rows: list[Attributes]) -> None:
        self.rows += add(self.database, self.stores[store], *rows)

    def change(self, which: int, changed: Attributes) -> None:
        if self.rows:
            change(self.database, self.rows[which % len(self.rows)], changed)

    def remove(self, which: int) -> None:
        if self.rows:
            with self.database.write() as tx:
                documents.remove(tx, self.rows.pop(which % len(self.rows)))

    def erase(self, store: int) -> None:
        doomed = self.stores[store].id
        with self.database.write() as tx:
            stores.mark_deleted(tx, doomed)
            while not stores.erase(tx, doomed, 2):
                pass
            self.stores[store] = new_store(tx)
        self.rows = [row for row in self.rows if row.store_id != doomed]

    def ask(self, store: int, which: int) -> None:
        one, tree = self.stores[store], self.trees[which]
        with self.database.read() as tx:
            expected = scanned(tx, one, tree)
        living = {row.id for row in self.rows}
        for sieve in self.workers:
            found = sieve.admitted(one.id, tree)
            assert sorted(set(found.tolist())) == found.tolist()
            # What was erased may be among them: there is no chunk of it to be found.
            assert {one for one in found.tolist() if one in living} == expected
