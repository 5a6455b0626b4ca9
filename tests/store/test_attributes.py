"""The attribute index against the plain evaluation, and that nothing lets it fall out of step with the documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragagent.store import attributes, chunks, documents, filters, stores
from ragagent.store import database as module
from ragagent.store.database import Database, Transaction, last_seq, migrate
from ragagent.types import Attributes, Comparison, Compound, Filter, VectorStore
from store.conftest import column, ingested, new_document, new_file, new_store
from store.conftest import totals as totals_of
from store.test_filters import names, scalars, trees

SCRIPTS = sorted(Path(module.__file__).with_name("schema").glob("*.sql"))
INDEXED = (
    "SELECT k.store_id, k.key, v.kind, v.value, v.document_id FROM attribute_values v"
    " LEFT JOIN attribute_keys k ON k.id = v.key_id"
)
PLAIN = (
    "SELECT d.store_id, a.key, CASE WHEN a.type IN ('true', 'false') THEN 0 WHEN a.type = 'text' THEN 2 ELSE 1 END,"
    " a.value, d.id FROM documents d, json_each(d.attributes) a"
)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.row_factory = sqlite3.Row
        opened.execute("PRAGMA foreign_keys = ON")
        migrate(opened)
        yield opened


def in_step(tx: Transaction) -> bool:
    """Return whether the index says what the documents say, and has no key that none of them carries."""
    indexed, plain = (sorted(map(repr, map(tuple, tx.execute(sql)))) for sql in (INDEXED, PLAIN))
    bare = column(tx, "SELECT key FROM attribute_keys WHERE id NOT IN (SELECT key_id FROM attribute_values)")
    return indexed == plain and not bare


def scanned(tx: Transaction, store: VectorStore, tree: Filter) -> list[int]:
    sql, parameters = filters.clause(tree)
    return column(tx, f"SELECT id FROM documents WHERE store_id = ? AND ({sql}) ORDER BY id", (store.id, *parameters))


attribute_maps = st.dictionaries(names, scalars, max_size=4)


@given(trees, st.lists(attribute_maps, max_size=8), st.lists(attribute_maps, max_size=3), st.integers(0, 3))
@example(Comparison("eq", "a", 1), [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {}], [{"a": 2}], 1)
@example(Comparison("nin", "a", ()), [{"a": 1}, {}], [], 0)
@example(Comparison("in", "a", (1, 1.0, True, "1", "1")), [{"a": 1}, {"a": True}, {"a": "1"}], [], 0)
@example(Compound("and", (Comparison("ne", "a", 1), Comparison("ne", "b", 1))), [{"a": 1}, {"b": 1}, {}], [], 0)
@example(Compound("or", (Comparison("ne", "a", 1), Comparison("eq", "b", 1))), [{"a": 1}, {"a": 1, "b": 1}, {}], [], 0)
@example(Compound("and", (Comparison("gt", "a", 1), Comparison("lte", "a", 3))), [{"a": n} for n in range(5)], [], 0)
def test_what_is_looked_up_is_what_a_scan_finds(
    connection: sqlite3.Connection, tree: Filter, rows: list[Attributes], later: list[Attributes], erased: int
) -> None:
    """Both while few documents are tested one by one, and when sets are made of all."""
    connection.execute("BEGIN")
    try:
        store, other = new_store(connection), new_store(connection)
        written = [new_document(connection, store, attributes=row) for row in rows]
        for row in later:
            new_document(connection, other, attributes=row)
        for document, changed in zip(written, later, strict=False):
            documents.set_attributes(connection, document, changed)
        for document in written[:erased]:
            documents.remove(connection, document)
        assert in_step(connection)
        expected = scanned(connection, store, tree)
        assert attributes.matching(connection, store.id, tree).tolist() == expected
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(attributes, "FEW", 0)
            assert attributes.matching(connection, store.id, tree).tolist() == expected
    finally:
        connection.execute("ROLLBACK")


def test_more_documents_than_are_tested_one_by_one(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        for n in range(60):
            new_document(tx, store, attributes={"n": n % 3, "m": n})
        tree = Compound("and", (Comparison("eq", "n", 1), Comparison("gte", "m", 30)))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(attributes, "FEW", 5)
            assert attributes.matching(tx, store.id, tree).tolist() == scanned(tx, store, tree)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (Comparison("eq", "few", 1), False),
        (Comparison("eq", "half", True), True),
        (Comparison("ne", "few", 1), True),
        (Comparison("in", "half", (True, "x")), True),
        (Comparison("gte", "n", 5), True),
        (Compound("and", (Comparison("gte", "n", 5), Comparison("lt", "n", 7))), False),
        (Compound("and", (Comparison("eq", "half", True), Comparison("eq", "few", 1))), False),
        (Compound("and", (Comparison("eq", "half", True), Comparison("nin", "few", (1,)))), True),
        (Compound("or", (Comparison("eq", "few", 1), Comparison("gte", "n", 0))), True),
        (Compound("or", (Comparison("eq", "few", 1), Comparison("eq", "few", 2))), False),
    ],
)
def test_a_broad_filter_is_known_at_a_glance(
    database: Database, monkeypatch: pytest.MonkeyPatch, tree: Filter, expected: bool
) -> None:
    monkeypatch.setattr(attributes, "BROAD", 5)
    with database.write() as tx:
        store, small = new_store(tx), new_store(tx)
        for n in range(10):
            row = {"n": n, "half": n % 2 == 0, "few": n}
            new_document(tx, store, attributes=row)
        assert attributes.is_broad(tx, store.id, tree) == expected
        assert not attributes.is_broad(tx, small.id, tree)


def test_a_long_list_of_values_can_be_looked_up(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        rows = [new_document(tx, store, attributes={"a": n}) for n in (4999, 5000)]
        values = tuple(range(5000))
        narrowed = Compound("and", (Comparison("in", "a", values), Comparison("gte", "a", 0)))
        assert attributes.matching(tx, store.id, Comparison("in", "a", values)).tolist() == [rows[0].id]
        assert attributes.matching(tx, store.id, Comparison("nin", "a", values)).tolist() == [rows[1].id]
        assert attributes.matching(tx, store.id, narrowed).tolist() == [rows[0].id]


def test_what_changed_since_a_write_is_what_came_and_what_got_other_attributes(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        old, untouched, gone = (new_document(tx, store, attributes={"a": 1}) for _ in range(3))
        since = last_seq(tx)
        new = new_document(tx, store, attributes={"a": 1})
        new_document(tx, other, attributes={"a": 1})
        documents.set_attributes(tx, old, {"a": 2})
        documents.remove(tx, gone)
        chunks.fail(tx, untouched.id, "invalid_file", "No.")
        tree = Comparison("eq", "a", 1)
        found = attributes.changed(tx, store.id, tree, since, 2)
        assert found is not None
        assert [ids.tolist() for ids in found] == [[old.id, new.id], [new.id]]
        assert attributes.changed(tx, store.id, tree, since, 1) is None


def test_keys_are_those_that_documents_of_the_store_carry_now(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        row = new_document(tx, store, attributes={"b": 1, "a\\b": 2})
        new_document(tx, store, attributes={"b": True})
        new_document(tx, other, attributes={"c": 1})
        assert attributes.keys(tx, store.id, 9) == ["a\\b", "b"]
        assert attributes.keys(tx, store.id, 1) == ["a\\b"]
        assert [attributes.has_key(tx, store.id, key) for key in ("b", "a\\b", "c")] == [True, True, False]
        documents.set_attributes(tx, row, {"d": 1})
        assert attributes.keys(tx, store.id, 9) == ["b", "d"]
        documents.remove(tx, row)
        assert attributes.keys(tx, store.id, 9) == ["b"]


@pytest.mark.parametrize("way", ["file", "purge", "erase", "cascade"])
def test_whatever_removes_a_document_takes_it_out_of_the_index(database: Database, way: str) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        file = new_file(tx)
        new_document(tx, other, attributes={"a": 1})
        if way == "purge":
            ingested(tx, store, "old", external_id="a", attributes={"a": 1, "b": 2})
            newest = ingested(tx, store, "new", external_id="a", attributes={"a": 1})
            assert attributes.keys(tx, store.id, 9) == ["a", "b"]
            assert chunks.purge_replaced(tx, store.id, newest.seq, 10) == 1
            documents.remove(tx, newest)
        else:
            new_document(tx, store, file=file, attributes={"a": 1, "b": 2})
        if way == "file":
            documents.remove_file(tx, file.id)
        if way == "erase":
            stores.mark_deleted(tx, store.id)
            assert stores.erase(tx, store.id, 10)
        if way == "cascade":
            tx.execute("DELETE FROM vector_stores WHERE id = ?", (store.id,))
        assert in_step(tx)
        assert column(tx, "SELECT count(*) FROM attribute_values") == [1]


def test_a_database_that_had_none_gets_the_index_of_what_it_holds(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as opened:
        opened.row_factory = sqlite3.Row
        for script in SCRIPTS[:2]:
            opened.executescript(script.read_text())
        opened.execute("PRAGMA user_version = 2")
        opened.execute("UPDATE counters SET value = 9")
        store = (
            "INSERT INTO vector_stores (id, tenant, name, model, dimension, chunk_tokens, overlap_tokens, created_at,"
            " seq) VALUES (?, 'default', '', 'm', 4, 400, 0, 0, 9)"
        )
        opened.executemany(store, [("vs_a",), ("vs_b",), ("vs_empty",)])
        for n, (store_id, attributes_, status, dead) in enumerate(
            [
                ("vs_a", '{"a": 1, "é": "中"}', "completed", None),
                ("vs_a", '{"a": true}', "failed", None),
                ("vs_a", "{}", "completed", 8),
                ("vs_b", '{"a": 0.5}', "in_progress", None),
            ]
        ):
            opened.execute(
                "INSERT INTO files (id, tenant, filename, purpose, bytes, sha256, created_at)"
                " VALUES (?, 'default', 'a', 'assistants', 1, '', 0)",
                (f"file-{n}",),
            )
            opened.execute(
                "INSERT INTO documents (store_id, file_id, attributes, status, chunk_tokens, overlap_tokens,"
                " usage_bytes, created_at, seq, dead_seq) VALUES (?, ?, ?, ?, 400, 0, 7, 0, ?, ?)",
                (store_id, f"file-{n}", attributes_, status, n + 1, dead),
            )
        opened.execute(
            'INSERT INTO chunks (store_id, document_id, ordinal, start, "end", text, seq)'
            " VALUES ('vs_a', 1, 0, 0, 4, 'text', 1)"
        )
        migrate(opened)
        assert in_step(opened)
        assert attributes.matching(opened, "vs_a", Comparison("eq", "a", 1)).tolist() == [1]
        totals = [totals_of(opened, store_id) for store_id in ("vs_a", "vs_b", "vs_empty")]
        assert [(one.documents, one.chunks, one.usage_bytes) for one in totals] == [(2, 1, 14), (1, 0, 7), (0, 0, 0)]
        assert stores.counts(opened, "vs_a", 7).completed == 2
