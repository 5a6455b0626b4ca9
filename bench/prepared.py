"""A data directory that holds one store of so many chunks, made once and kept in bench/.corpora.

What a load over HTTP would leave, for a million chunks in minutes instead of an hour: documents, files, chunks and
vectors go straight into SQLite, with the store's own functions, and a real server's indexer publishes them. Each text
is a document of one chunk, which is the hardest case for filters: as many documents as chunks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import machine
import ragagent
from corpus import CACHE, SEED, Corpus, Vectors, attributes, directory, vectors
from ragagent import config_file
from ragagent.store import chunks, documents, files, stores
from ragagent.store.chunks import NewChunk
from ragagent.store.database import Database
from ragagent.types import Caller
from server import running

SLICE = 5_000  # documents in one transaction
INDEX_SECONDS = 3600.0


@dataclass(frozen=True)
class Prepared:
    """A data directory with one store. The chunk of text number n, from 0, has the id n + 1."""

    path: Path
    store: str
    size: int

    @property
    def index(self) -> Path:
        return self.path / "index"

    @contextlib.contextmanager
    def copy(self) -> Iterator[Prepared]:
        """Yield a copy that may be written to."""
        with tempfile.TemporaryDirectory(prefix="copy-", dir=CACHE) as directory:
            path = Path(directory) / "data"
            shutil.copytree(self.path, path, ignore=shutil.ignore_patterns("*.sock", "*.pid"))
            yield Prepared(path, self.store, self.size)


def prepare(corpus: Corpus, size: int) -> Prepared:
    """Return the directory of that size, made by this run or an earlier one of the same code."""
    path = directory(corpus) / f"{size}-{_code()}"
    note = path / "store.json"
    if not note.exists():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        found = vectors(corpus, size)
        begun = time.monotonic()
        store = _write(path, corpus, found)
        written = time.monotonic()
        _publish(path, store, size)
        note.write_text(json.dumps({"store": store}))
        _say(f"prepared {size:,} chunks: SQLite {written - begun:.0f} s, index {time.monotonic() - written:.0f} s")
    return Prepared(path, json.loads(note.read_text())["store"], size)


def _write(path: Path, corpus: Corpus, rows: Vectors) -> str:
    size = len(rows)
    settings = config_file.load()
    database = Database.open(path / "ragagent.db")
    try:
        with database.write() as tx:
            store = stores.add(
                tx,
                tenant=Caller().tenant,
                name="bench",
                metadata={},
                model=settings.embedder.model,
                dimension=settings.embedder.dimension,
                chunk_tokens=settings.ingest.chunk_tokens,
                overlap_tokens=settings.ingest.chunk_overlap_tokens,
            )
        given = attributes(size)
        for first in range(0, size, SLICE):
            with database.write() as tx:
                for number, text in enumerate(corpus.texts(min(SLICE, size - first), first), first):
                    name = external_id(number)
                    file = files.add(tx, Caller(), filename=name, purpose="assistants", data=text.encode())
                    document = documents.add(
                        tx,
                        store_id=store.id,
                        file_id=file.id,
                        external_id=name,
                        batch_id=None,
                        attributes=given[number],
                        chunk_tokens=store.chunk_tokens,
                        overlap_tokens=store.overlap_tokens,
                        traceparent=None,
                    )
                    chunks.complete(tx, document.id, [NewChunk(0, 0, len(text), text, rows[number])])
        with database.read() as tx:
            ends = tuple(tx.execute("SELECT min(id), max(id), count(*) FROM chunks").fetchone())
        assert ends == (1, size, size), f"chunks are numbered {ends}"
        return store.id
    finally:
        database.close()


def external_id(number: int) -> str:
    return f"text-{number}"


def _publish(path: Path, store: str, size: int) -> None:
    with running(path, RAGAGENT_SERVER__WORKERS="1") as started:
        machine.wait_until_quiet(started.indexer(), INDEX_SECONDS)
        counts = started.client.get(f"/v1/vector_stores/{store}").raise_for_status().json()["file_counts"]
        assert counts["completed"] == size, f"of {size} documents, these are searchable: {counts}"


def _code() -> str:
    """Return a digest of the code that decides what stands in a data directory, so that a change makes it anew."""
    root = Path(ragagent.__file__).parent
    sources = sorted(
        [*root.glob("index/*.py"), *root.glob("store/schema/*.sql"), root / "engine" / "publishing" / "open_index.py"]
    )
    digest = hashlib.sha256(str(SEED).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
