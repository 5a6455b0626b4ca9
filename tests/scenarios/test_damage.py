"""Derived files that are not what was written: the store is built again from SQLite, and nobody else notices.

And SQLite itself, which nothing can build again: then the server says so, and leaves the rest as it is.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import servers
from ragagent.engine.publishing.publisher import OPEN_WRITERS
from ragagent.index import manifest

SECONDS = 120.0  # dozens of indexes are read, removed and built again, one after the other
ROWS = {"RAGAGENT_INGEST__MAX_DELTA_ROWS": "5"}

Answers = dict[str, tuple[float, bool]]  # text -> cosine, and whether the words found it as well


def _flip(path: Path) -> None:
    """Turn one bit around, in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    _overwrite(path, bytes(data))


def _tear(path: Path) -> None:
    """Leave the second half as a disk that lost power would: full of zeros."""
    data = path.read_bytes()
    _overwrite(path, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _lose(path: Path) -> None:
    path.unlink()


def _overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


WAYS: tuple[Callable[[Path], None], ...] = (_flip, _tear, _cut, _lose)
FILLER = "Words that fill pages. " * 40
HARMLESS = {".tantivy-writer.lock", ".tantivy-meta.lock"}  # Tantivy's, made anew by whoever needs them


def test_a_damaged_index_is_built_again_while_the_others_answer(tmp_path: Path) -> None:
    _damage_and_start(tmp_path, ways=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_an_index_damaged_in_any_way_is_built_again(tmp_path: Path) -> None:
    _damage_and_start(tmp_path, ways=len(WAYS))


def _damage_and_start(directory: Path, ways: int) -> None:
    """Damage each kind of file, in so many ways each, of one store each, while the server is stopped."""
    with servers.server(directory, **ROWS) as running:
        kinds = sorted(_kinds(_Store.filled(running, "a pattern").index))
        assert {"MANIFEST", "G/vectors.faiss", "G/rows.i64", "D/vectors.f32", "D/dead.i64", "lexical/meta.json"} < {
            *kinds
        }
        # Each kind in each way, or in another way than its neighbours.
        plans = [(kind, WAYS[(first + n) % len(WAYS)]) for n, kind in enumerate(kinds) for first in range(ways)]
        with ThreadPoolExecutor(4) as threads:
            names = [f"{kind} {way.__name__}" for kind, way in plans]
            stores = list(threads.map(lambda name: _Store.filled(running, name), names))
        well = _Store.filled(running, "well")
    for store, (kind, way) in zip(stores, plans, strict=True):
        path = _kinds(store.index)[kind]
        if path.stat().st_size or way is _lose:
            way(path)
    with servers.server(directory, **ROWS) as running:
        _until_all_answer(running, stores, well)
        assert [worker["restarts"] for worker in running.workers()] == [0, 0]


@dataclass
class _Store:
    """One of many that all hold the same, so that each must answer as the one that is well."""

    id: str
    name: str
    index: Path

    @classmethod
    def filled(cls, running: servers.Running, name: str) -> _Store:
        """Make a store that has all there is: a generation with rows, a delta with rows, and dead rows of both."""
        store_id = running.new_store(name)
        index = running.data_dir / "index" / store_id
        running.upsert(store_id, **{f"d{n}": f"Document {n} tells of item{n:02d}." for n in range(8)})

        def is_built() -> bool:
            found = manifest.read(index)
            return found is not None and found[1].generation > 1

        servers.wait_until(is_built, SECONDS)
        running.upsert(store_id, d1="Document 1 tells of another thing.", d8="Document 8 tells of item08.")
        with running.http() as client:
            body = {"store": store_id, "external_ids": ["d2"]}
            client.request("DELETE", "/v1/ragagent/documents", json=body).raise_for_status()
        return cls(store_id, name, index)

    def difference(self, running: servers.Running, wanted: Answers) -> object:
        """Return what it answers and should not, or does not and should; nothing when all is well."""
        try:
            return _answers(running, self.id).items() ^ wanted.items()
        except httpx.HTTPStatusError as exc:
            assert exc.response.status_code in (500, 503), exc.response.text
            return exc.response.text


def _answers(running: servers.Running, store_id: str) -> Answers:
    found = running.search(store_id, "document item04")
    texts = [item["content"][0]["text"] for item in found]
    assert len(texts) == len(set(texts)), texts
    return {
        item["content"][0]["text"]: (round(item["scores"]["dense"], 4), item["scores"]["lexical"] is not None)
        for item in found
        if item["scores"]["dense"] is not None
    }


def _kinds(index: Path) -> dict[str, Path]:
    """Return one file of each kind that an index consists of, by a name that is the same in every store."""
    found = {}
    for path in sorted(index.rglob("*")):
        if path.is_file() and path.name not in HARMLESS:
            name = str(path.relative_to(index))
            name = re.sub(r"^\d{6}\.delta/", "D/", name)
            name = re.sub(r"^\d{6}/", "G/", name)
            found[re.sub(r"^lexical/[0-9a-f]{32}", "lexical/segment", name)] = path
    return found


def _until_all_answer(running: servers.Running, stores: list[_Store], well: _Store) -> None:
    wanted = _answers(running, well.id)
    assert len(wanted) >= 8
    left = {store.name: store for store in stores}

    def is_done() -> bool:
        for name in [name for name, store in left.items() if not store.difference(running, wanted)]:
            del left[name]
        assert _answers(running, well.id) == wanted
        return not left

    try:
        servers.wait_until(is_done, SECONDS)
    except AssertionError as exc:
        wrong = "\n".join(f"{name}: {store.difference(running, wanted)}" for name, store in left.items())
        raise AssertionError(f"{len(left)} of {len(stores)} do not answer as they should:\n{wrong}") from exc


# While it runs


def test_an_index_damaged_under_a_running_server_is_built_again(tmp_path: Path) -> None:
    """What readers have mapped goes on unharmed; who has to open a damaged file says so until there is a new one."""
    with servers.server(tmp_path, **ROWS) as running:
        kinds = sorted(_kinds(_Store.filled(running, "a pattern").index))
        # Few enough for the indexer to have them all open: it trusts what it has read.
        kinds = [kind for kind in kinds if "segment" not in kind or kind.endswith((".fast", ".idx", ".term"))]
        assert len(kinds) + 2 <= OPEN_WRITERS
        with ThreadPoolExecutor(4) as threads:
            plans = [(kind, (_lose, _replace)[n % 2]) for n, kind in enumerate(kinds)]
            names = [f"{kind} {way.__name__}" for kind, way in plans]
            stores = list(threads.map(lambda name: _Store.filled(running, name), names))
        well = _Store.filled(running, "well")
        for store, (kind, way) in zip(stores, plans, strict=True):
            way(_kinds(store.index)[kind])
        for store in (*stores, well):  # A write, so that whoever has the store open looks at it again.
            running.upsert(store.id, d9="Document 9 tells of item09.")
        _until_all_answer(running, stores, well)
        # And again when everything has been opened anew.
        assert running.control("reload")["ok"]
        _until_all_answer(running, stores, well)
        assert [worker["restarts"] for worker in running.workers()] == [0, 0]


def _replace(path: Path) -> None:
    """Put a damaged file in its place: whoever has mapped the old one keeps it, as a copy from a backup would do."""
    new = path.with_name(f"{path.name}.new")
    data = path.read_bytes()
    new.write_bytes(data[: len(data) // 2])
    new.rename(path)


# The database


def test_a_damaged_database_is_reported_and_its_index_left_alone(tmp_path: Path) -> None:
    with servers.server(tmp_path) as running:
        store = running.new_store("lost")
        running.upsert(
            store, **{f"d{n}": f"Document {n} tells of item{n:02d}. " + "Filler. " * 100 for n in range(300)}
        )
        assert running.found(store, "item07")
    _damage_a_page(running.data_dir / "ragagent.db", store)
    index = running.data_dir / "index" / store
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.is_file()}
    with servers.server(tmp_path, RAGAGENT_INGEST__WAIT_SECONDS="1") as running:
        with running.http() as client:
            reply = client.post(f"/v1/vector_stores/{store}/search", json={"query": "item07", "max_num_results": 50})
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (500, "database_damaged"), reply.text
            assert "restore the last backup" in error["message"]
            # What needs nothing of it is answered.
            assert client.get("/healthz").status_code == 200
            assert client.get("/v1/models").status_code == 200
        _index_again(running, store)
        assert running.process.poll() is None
    assert {path: path.stat().st_mtime_ns for path in before} == before


def _damage_a_page(database: Path, store: str) -> None:
    """Fill the pages of the chunks' texts with noise; the schema, the stores and the documents stay readable."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunks'").fetchone()
    with database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)


def _index_again(running: servers.Running, store: str) -> None:
    """Write, so that the indexer looks at the database as well: it says what it finds, and tries again."""
    with running.http() as client:
        body = {"store": store, "documents": [{"external_id": "new", "text": "A new text."}]}
        reply = client.post("/v1/ragagent/documents", json=body)
    assert reply.status_code == 202, reply.text  # It is on disk, and waits.
    servers.wait_until(lambda: _complaints(running) > 1, SECONDS)


def _complaints(running: servers.Running) -> int:
    lines = [line for line in running.log.read_text().splitlines() if "ragagent.indexer" in line]
    return sum("The database file is damaged. Stop the server" in line for line in lines)
