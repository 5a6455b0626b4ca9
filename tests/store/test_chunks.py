"""Which chunks a reader at a given seq may see: against a model, whatever is written meanwhile."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragagent.store import chunks, documents, files, jobs
from ragagent.store.database import Database, migrate
from ragagent.types import Comparison, Document, Hit
from store.conftest import CALLER, DIMENSION, column, ingested, new_chunks, new_document, new_file, new_store

EXTERNAL_IDS = ("a", "b")


@dataclass
class Version:
    """One version of a text, as the model knows it."""

    row: Document
    status: str = "in_progress"
    texts: list[str] = field(default_factory=list)


class Visibility(RuleBasedStateMachine):
    """Texts come, replace each other, fail, go; the index follows as the publisher makes it. Readers hold old views."""

    @initialize()
    def open(self) -> None:
        self.tx = sqlite3.connect(":memory:", isolation_level=None)
        self.tx.row_factory = sqlite3.Row
        self.tx.execute("PRAGMA foreign_keys = ON")
        migrate(self.tx)
        self.store = new_store(self.tx)
        self.versions: dict[str, list[Version]] = {external_id: [] for external_id in EXTERNAL_IDS}
        self.index: set[int] = set()
        self.shown = 0
        self.readers = {0}
        self.counter = 0

    def teardown(self) -> None:
        self.tx.close()

    # What workers do

    @rule(external_id=st.sampled_from(EXTERNAL_IDS), is_ingested=st.booleans(), count=st.integers(1, 2))
    def upsert(self, external_id: str, is_ingested: bool, count: int) -> None:
        version = Version(new_document(self.tx, self.store, external_id))
        self.versions[external_id].append(version)
        if is_ingested:
            self.completed(version, count)

    @rule(external_id=st.sampled_from(EXTERNAL_IDS))
    def remove(self, external_id: str) -> None:
        for row in (
            *documents.versions(self.tx, self.store.id, external_id),
            *documents.replaced(self.tx, self.store.id, external_id),
        ):
            documents.remove(self.tx, row)
            files.discard(self.tx, row.file_id)
        self.versions[external_id].clear()

    # What the indexer does

    def waiting(self) -> list[Version]:
        found = [v for versions in self.versions.values() for v in versions if v.status in ("in_progress", "overtaken")]
        return sorted(found, key=lambda version: version.row.seq)

    @rule(position=st.integers(0, 3), count=st.integers(1, 2))
    def complete(self, position: int, count: int) -> None:
        for version in self.waiting()[position : position + 1]:
            self.completed(version, count)

    def completed(self, version: Version, count: int) -> None:
        self.counter += 1
        version.texts = [f"{self.counter}.{n}" for n in range(count)]
        assert chunks.complete(self.tx, version.row.id, new_chunks(*version.texts)) == (version.status == "in_progress")
        if version.status == "overtaken":
            return
        version.status = "completed"
        for older in self.versions[version.row.external_id or ""]:
            if older.row.seq < version.row.seq and older.status == "in_progress":
                older.status = "overtaken"

    @rule(position=st.integers(0, 3))
    def fail(self, position: int) -> None:
        for version in self.waiting()[position : position + 1]:
            chunks.fail(self.tx, version.row.id, "invalid_file", "No.")
            version.status = "failed"

    @rule(is_cut_short=st.booleans())
    def publish(self, is_cut_short: bool) -> None:
        target = jobs.watermark(self.tx, self.store.id)
        assert target >= self.shown
        buried = chunks.buried(self.tx, self.store.id, target)
        self.index |= self.born(self.shown, target)
        if is_cut_short:
            return
        self.index -= {*chunks.died(self.tx, self.store.id, self.shown, target), *buried}
        chunks.clear_tombstones(self.tx, buried)
        self.shown = target
        self.readers.add(target)
        # What was erased after `target` waits for its own turn: its text is gone, so nobody sees it.
        assert self.index - set(column(self.tx, "SELECT chunk_id FROM tombstones")) == self.born(0, target)

    def born(self, after: int, up_to: int) -> set[int]:
        found: set[int] = set()
        beyond = (0, 0)
        while rows := chunks.born(self.tx, self.store.id, self.store.slot, after, up_to, beyond=beyond, limit=2):
            found |= {row.id for row in rows}
            beyond = rows[-1].seq, rows[-1].id
        return found

    @rule()
    def let_go(self) -> None:
        self.readers = {self.shown}

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        assert chunks.purge_replaced(self.tx, self.store.id, min(self.readers), limit) <= limit

    # What must hold

    @invariant()
    def every_reader_sees_each_text_once_and_whole(self) -> None:
        everything = [Hit(chunk_id, 1.0) for chunk_id in column(self.tx, "SELECT id FROM chunks")]
        for seq in self.readers:
            seen = {item.text for item in chunks.evidence(self.tx, self.store.id, everything, seq)}
            assert seen == {text for versions in self.versions.values() for text in newest(versions, seq)}

    @invariant()
    def the_index_lacks_nothing_that_can_be_seen(self) -> None:
        everything = [Hit(chunk_id, 1.0) for chunk_id in column(self.tx, "SELECT id FROM chunks")]
        visible = {item.chunk_id for item in chunks.evidence(self.tx, self.store.id, everything, self.shown)}
        assert visible <= self.index


def newest(versions: list[Version], seq: int) -> list[str]:
    """Return the texts of the newest version that a reader at `seq` can see, if there is one."""
    seen = [version for version in versions if version.status == "completed" and version.row.seq <= seq]
    return seen[-1].texts if seen else []


TestVisibility = Visibility.TestCase
TestVisibility.settings = settings(max_examples=250, stateful_step_count=30, deadline=None)


def test_evidence_comes_in_the_order_of_the_hits_with_their_scores(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = ingested(tx, store, "one", "two", attributes={"lang": "en"})
        first, second = column(tx, "SELECT id FROM chunks ORDER BY id")
        found = chunks.evidence(tx, store.id, [Hit(second, 0.9, 0.5, 3.0), Hit(999, 0.8), Hit(first, 0.7)], row.seq)
        assert [(item.text, item.score, item.dense, item.lexical) for item in found] == [
            ("two", 0.9, 0.5, 3.0),
            ("one", 0.7, None, None),
        ]
        assert (found[0].file_id, found[0].filename, found[0].attributes) == (row.file_id, "a.txt", {"lang": "en"})
        assert (found[0].ordinal, found[0].start, found[0].end) == (1, 10, 13)
        assert chunks.evidence(tx, store.id, [], row.seq) == []


def test_chunks_pass_by_the_attributes_that_their_document_has_now(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        one, two = (ingested(tx, store, "a", "b", attributes={"n": n}) for n in (1, 2))
        ids = [column(tx, "SELECT id FROM chunks WHERE document_id = ?", [row.id]) for row in (one, two)]
        tree = Comparison("eq", "n", 2)
        assert chunks.passing(tx, {*ids[0], ids[1][0], 999}, two.seq, tree) == {ids[1][0]}
        documents.set_attributes(tx, one, {"n": 2})
        assert chunks.passing(tx, [*ids[0], *ids[1]], two.seq, tree) == {*ids[0], *ids[1]}
        assert chunks.passing(tx, [*ids[0], *ids[1]], one.seq, tree) == {*ids[0]}
        assert chunks.passing(tx, [], two.seq, tree) == set()


def test_chunks_are_visible_from_their_birth_to_their_replacement(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "a", external_id="x")
        new = ingested(tx, store, "b", external_id="x")
        both = column(tx, "SELECT id FROM chunks ORDER BY id")
        assert chunks.visible(tx, {*both, 999}, old.seq - 1) == set()
        assert chunks.visible(tx, both, old.seq) == {both[0]}
        assert chunks.visible(tx, both, new.seq) == {both[1]}


def test_evidence_is_of_its_store_alone(database: Database) -> None:
    with database.write() as tx:
        row = ingested(tx, new_store(tx), "mine")
        hits = [Hit(chunk_id, 1.0) for chunk_id in column(tx, "SELECT id FROM chunks")]
        assert chunks.evidence(tx, new_store(tx).id, hits, row.seq + 10) == []


def test_a_completed_document_has_its_chunks_and_its_size_and_no_job(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        row = ingested(tx, store, "中文", "b")
        assert chunks.of_document(tx, row.id) == [(0, 2, "中文"), (10, 11, "b")]
        assert row.usage_bytes == len("中文b".encode()) + 2 * 4 * DIMENSION
        assert (row.status, jobs.depth(tx)) == ("completed", 0)


def test_a_vector_comes_back_as_it_was(database: Database) -> None:
    vector = np.array([0.6, -0.8, 1e-30, 0.0], np.float32)
    with database.write() as tx:
        store = new_store(tx)
        row = new_document(tx, store)
        chunks.complete(tx, row.id, [chunks.NewChunk(0, 0, 1, "x", vector)])
        (found,) = chunks.born(tx, store.id, 0, 0, row.seq, beyond=(0, 0), limit=9)
        assert found.vector.tobytes() == vector.tobytes()
        assert (found.document_id, found.text) == (row.id, "x")


def test_a_document_is_completed_once(database: Database) -> None:
    with database.write() as tx:
        row = ingested(tx, new_store(tx), "text")
        assert not chunks.complete(tx, row.id, new_chunks("again"))
        chunks.fail(tx, row.id, "server_error", "Too late.")
        assert column(tx, "SELECT text FROM chunks") == ["text"]
        assert column(tx, "SELECT status FROM documents") == ["completed"]


def test_a_version_that_a_newer_one_has_overtaken_is_not_completed(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old, new = new_document(tx, store, "a"), new_document(tx, store, "a")
        assert chunks.complete(tx, new.id, new_chunks("new"))
        assert column(tx, "SELECT document_id FROM jobs") == []
        assert not chunks.complete(tx, old.id, new_chunks("old"))
        assert column(tx, "SELECT text FROM chunks") == ["new"]


def test_a_document_that_is_gone_is_not_completed(database: Database) -> None:
    with database.write() as tx:
        row = new_document(tx, new_store(tx))
        documents.remove(tx, row)
        assert not chunks.complete(tx, row.id, new_chunks("text"))
        assert column(tx, "SELECT count(*) FROM chunks") == [0]


def test_a_failed_document_says_why_and_leaves_the_version_before_it(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        old = ingested(tx, store, "old", external_id="a")
        new = new_document(tx, store, "a")
        chunks.fail(tx, new.id, "invalid_file", "There is no text in it.")
        found = documents.find(tx, store.id, new.file_id)
        assert found is not None
        assert (found.status, found.error_code, found.error_message) == (
            "failed",
            "invalid_file",
            "There is no text in it.",
        )
        assert [row.id for row in documents.versions(tx, store.id, "a")] == [new.id, old.id]
        assert jobs.depth(tx) == 0


def test_a_purge_takes_no_more_than_it_may(database: Database) -> None:
    with database.write() as tx:
        store = new_store(tx)
        rows = [ingested(tx, store, str(n), external_id="a") for n in range(4)]
        assert [chunks.purge_replaced(tx, store.id, rows[-1].seq, 2) for _ in range(3)] == [2, 1, 0]


def test_a_purge_takes_the_file_of_a_replaced_text_unless_it_is_used_elsewhere(database: Database) -> None:
    with database.write() as tx:
        store, other = new_store(tx), new_store(tx)
        lone, shared = new_file(tx), new_file(tx)
        ingested(tx, store, "1", external_id="a", file=lone)
        ingested(tx, store, "1", external_id="b", file=shared)
        new_document(tx, other, file=shared)
        seqs = [ingested(tx, store, "2", external_id=external_id).seq for external_id in "ab"]
        assert [chunks.purge_replaced(tx, store.id, seq, 10) for seq in (seqs[0] - 1, seqs[1], seqs[1])] == [0, 2, 0]
        assert [files.find(tx, CALLER, file.id) for file in (lone, shared)] == [None, shared]
        assert len(chunks.buried(tx, store.id, seqs[1])) == 2


def test_evidence_is_read_by_its_ids_however_large_the_store(database: Database) -> None:
    statements: list[str] = []
    with database.write() as tx:
        store = new_store(tx)
        row = ingested(tx, store, *"abcdefghij")
        hits = [Hit(number, 0.5) for number in column(tx, "SELECT id FROM chunks")]
        tx.set_trace_callback(statements.append)
        assert len(chunks.evidence(tx, store.id, hits, row.seq)) == 10
        tx.set_trace_callback(None)
        (statement,) = (one for one in statements if "FROM chunks c" in one)
        plan = [step["detail"] for step in tx.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)" in plan, plan
