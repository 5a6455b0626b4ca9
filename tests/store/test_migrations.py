"""From every schema that a release has shipped to today's: nothing is lost, and the index built before still matches.

A released script never changes, so a database of that release is made here as its code made one.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ragagent import config
from ragagent.engine.keeping import backup, restore
from ragagent.engine.publishing.publisher import Publisher
from ragagent.errors import Conflict, RagagentError
from ragagent.index.rows import Row
from ragagent.index.searchers import Searchers
from ragagent.index.writer import Writer
from ragagent.store import backlog, chunks, documents, files, jobs, keys, stores
from ragagent.store import database as module
from ragagent.store.backlog import Load
from ragagent.store.database import Database, newest_schema
from ragagent.text import tokens
from ragagent.types import Allowance, Caller, Hit
from store.conftest import column

STORE, MODEL, DIMENSION = "vs_0123456789abcdef01234567", "model-a", 8
PEPPER = b"p" * 32
TEXTS = {
    1: "A reload drops no request.",
    2: "重载不丢请求。",
    3: "A backup is one file.",
    4: "It was the older version.",
}
SCRIPTS = Path(module.__file__).with_name("schema")


def vector(chunk_id: int) -> np.ndarray:
    found = np.random.default_rng(chunk_id).standard_normal(DIMENSION).astype("<f4")
    return np.asarray(found / np.linalg.norm(found), "<f4")


def at_schema(path: Path, number: int) -> sqlite3.Connection:
    """Open a database as the release with schema `number` left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    for script in sorted(SCRIPTS.glob("*.sql"))[:number]:
        connection.executescript(script.read_text())
    connection.execute(f"PRAGMA user_version = {number}")
    return connection


def fill_1(connection: sqlite3.Connection) -> None:
    """Write what 0.1 wrote: two texts, one replaced a moment ago, an uploaded file, one still queued, a key."""
    run = connection.execute
    run("UPDATE counters SET value = 6 WHERE name = 'seq'")
    run(
        "INSERT INTO vector_stores VALUES (?, 'default', 'docs', ?, ?, ?, 400, 40, 1700000000, 6, NULL)",
        (STORE, '{"about": "reload"}', MODEL, DIMENSION),
    )
    run("INSERT INTO batches VALUES ('vsfb_1', ?, 1700000000, NULL)", (STORE,))
    for number, (external_id, status, seq, dead_seq) in enumerate(
        [
            ("a", "completed", 2, 5),
            (None, "completed", 3, None),
            ("a", "completed", 5, None),
            ("b", "in_progress", 6, None),
        ],
        start=1,
    ):
        data = f"the bytes of file {number}".encode()
        run(
            "INSERT INTO files VALUES (?, 'default', ?, 'assistants', ?, ?, 'k1', 1700000000)",
            (f"file-{number}", f"{number}.txt", len(data), hashlib.sha256(data).hexdigest()),
        )
        run("INSERT INTO file_contents VALUES (?, ?)", (f"file-{number}", data))
        run(
            "INSERT INTO documents VALUES (NULL, ?, ?, ?, ?, ?, ?, NULL, NULL, 400, 40, 99, 1700000000, ?, ?)",
            (
                STORE,
                f"file-{number}",
                external_id,
                None if external_id else "vsfb_1",
                '{"year": 2024}',
                status,
                seq,
                dead_seq,
            ),
        )
    run("INSERT INTO jobs VALUES ('job_1', ?, 4, 6, 1, '00-trace', 1700000000)", (STORE,))
    for chunk_id, (document_id, ordinal, seq, dead_seq) in enumerate(
        [(2, 0, 3, None), (2, 1, 3, None), (3, 0, 5, None), (1, 0, 2, 5)], start=1
    ):
        run(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, 0, 9, ?, ?, ?, ?)",
            (chunk_id, STORE, document_id, ordinal, TEXTS[chunk_id], vector(chunk_id).tobytes(), seq, dead_seq),
        )
    run("INSERT INTO tombstones VALUES (9, ?, 5)", (STORE,))
    mac = hmac.digest(PEPPER, b"secret", hashlib.sha256)
    run("INSERT INTO api_keys VALUES ('k1', 'default', 'ci', ?, ?, 1700000000, NULL)", (mac, f'["{STORE}"]'))


# One for each schema that was released; what was only ever on main has none.
RELEASED: dict[int, Callable[[sqlite3.Connection], None]] = {1: fill_1}


@pytest.fixture(params=RELEASED)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Make a data directory of an earlier release, with the index that its indexer had published at seq 5."""
    path = tmp_path / "ragagent.db"
    with closing(at_schema(path, request.param)) as connection:
        RELEASED[request.param](connection)
    with Writer.open(tmp_path / "index", STORE, MODEL, DIMENSION, hnsw_rows=100, max_delta_rows=100) as writer:
        rows = [Row(n, 2 if n < 3 else 3, vector(n), " ".join(tokens(TEXTS[n]))) for n in (1, 2, 3)]
        writer.publish(5, rows)
        writer.compact()
    return path


@pytest.fixture
def migrated(old: Path) -> Iterator[Database]:
    with closing(Database.open(old)) as opened:
        yield opened


def test_everything_reads_as_it_was_written(migrated: Database) -> None:
    with migrated.read() as tx:
        assert column(tx, "PRAGMA user_version") == [newest_schema()]
        (store,) = stores.living(tx)
        assert (store.id, store.name, store.metadata, store.model) == (STORE, "docs", {"about": "reload"}, MODEL)
        assert (store.seq, store.slot, store.index) == (6, 0, STORE)
        newest = documents.versions(tx, STORE, "a")
        assert [(row.id, row.status, row.attributes) for row in newest] == [(3, "completed", {"year": 2024})]
        assert [row.id for row in documents.replaced(tx, STORE, "a")] == [1]
        assert chunks.of_document(tx, 2) == [(0, 9, TEXTS[1]), (0, 9, TEXTS[2])]
        assert files.content(tx, "file-2") == b"the bytes of file 2"
        file = files.find(tx, Caller(key_id="k1", stores=frozenset({STORE})), "file-2")
        assert file is not None
        assert chunks.buried(tx, STORE, 6) == [9]
        key = keys.verify(tx, PEPPER, "rag_k1_secret")
        assert key is not None
        assert (key.id, key.stores, key.allowance) == ("k1", (STORE,), Allowance())


def test_vectors_are_the_same_bit_for_bit(migrated: Database) -> None:
    with migrated.read() as tx:
        found = chunks.born(tx, STORE, 0, 0, 6, beyond=(0, 0), limit=10)
        assert {row.id: row.vector.tobytes() for row in found} == {n: vector(n).tobytes() for n in (1, 2, 3)}
        assert column(tx, "SELECT vector FROM vectors_0 WHERE chunk_id = 4") == [vector(4).tobytes()]


def test_what_was_queued_is_still_queued(migrated: Database) -> None:
    with migrated.write() as tx:
        (job,) = jobs.take(tx, jobs.Holder(1, 1), 10, 1000)
        assert (job.document_id, job.attempts, job.traceparent, job.is_text) == (4, 2, "00-trace", True)
        assert backlog.load(tx) == Load(1, job.bytes)


def test_foreign_keys_hold_and_still_work(migrated: Database) -> None:
    with migrated.write() as tx:
        assert tx.execute("PRAGMA foreign_key_check").fetchall() == []
        assert column(tx, "PRAGMA integrity_check") == ["ok"]
        tx.execute("DELETE FROM documents WHERE id = 2")
        assert column(tx, "SELECT id FROM chunks ORDER BY id") == [3, 4]
        assert column(tx, "SELECT chunk_id FROM vectors_0 ORDER BY chunk_id") == [3, 4]


@pytest.mark.anyio
async def test_the_index_of_before_goes_on_being_right(migrated: Database, tmp_path: Path) -> None:
    """It is at seq 5, and so is what has been ingested: but for a tombstone there is nothing to publish or rebuild."""
    publisher = Publisher(migrated, tmp_path / "index", config.Ingest())
    await publisher.publish()
    assert [(manifest.seq, manifest.rows) for _, manifest in publisher.manifests] == [(5, 3)]
    assert [manifest.generation for _, manifest in publisher.manifests] == [2], "it was not built anew"
    await publisher.close()
    with closing(Searchers(tmp_path / "index", ef_search=64)) as searchers, searchers.pin(STORE) as searcher:
        legs = searcher.search(vector(3), tokens("重载"), candidates=1)
        hits = [Hit(legs.dense[0][0], 1.0), Hit(legs.lexical[0][0], 1.0)]
        with migrated.read() as tx:
            assert [item.text for item in chunks.evidence(tx, STORE, hits, searcher.seq)] == [TEXTS[3], TEXTS[2]]


def test_a_backup_of_then_is_restored_today(old: Path, tmp_path: Path) -> None:
    made = backup.create(
        config.Data(dir=str(tmp_path)), tmp_path / "b.tar.zst", with_index=True, advance=lambda n: None
    )
    assert (made.listing.schema < newest_schema(), made.listing.stores) == (True, {STORE: 5})
    target = config.Data(dir=str(tmp_path / "new"))
    restore.restore(made.path, target, lambda n: None)
    with closing(Database.open(target.database)) as opened, opened.read() as tx:
        assert column(tx, "PRAGMA user_version") == [newest_schema()]
        assert column(tx, "SELECT text FROM chunks ORDER BY id") == list(TEXTS.values())


def test_a_migration_that_fails_leaves_the_old_file_usable(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(script: str) -> Iterator[str]:
        yield from list(statements(script))[:-1]
        yield "SELECT nothing FROM nowhere"

    statements = module._statements
    with closing(sqlite3.connect(old, isolation_level=None)) as before:
        schema = column(before, "PRAGMA user_version")
        tables = column(before, "SELECT sql FROM sqlite_master ORDER BY name")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_statements", fail)
        with pytest.raises(RagagentError):
            Database.open(old)
    with closing(sqlite3.connect(old, isolation_level=None)) as after:
        assert column(after, "PRAGMA user_version") == schema
        assert column(after, "SELECT sql FROM sqlite_master ORDER BY name") == tables
        assert column(after, "SELECT text FROM chunks ORDER BY id") == list(TEXTS.values())
    Database.open(old).close()


def test_a_database_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    Database.open(tmp_path / "x.db").close()
    newer = newest_schema() + 1
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    with pytest.raises(Conflict, match=f"schema {newer}, and RAGAgent [0-9.]+ knows schemas up to {newer - 1}"):
        Database.open(tmp_path / "x.db")
