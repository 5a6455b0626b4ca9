"""A store's editions as `ragagent index` shows them, and the wait until one of them is where it should be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ragagent.cli.output import Cell, size
from ragagent.config import Data
from ragagent.engine.doorbell import Doorbell
from ragagent.errors import Damaged
from ragagent.index import directory, manifest, retention
from ragagent.index.directory import DiskStats
from ragagent.index.verify import verify
from ragagent.store import chunks, editions, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition
from ragagent.types import VectorStore

HEADER = ("STORE", "INDEX", "STATE", "MODEL", "ROWS", "GENERATION", "SIZE", "SEQ", "DONE")
POLL_SECONDS = 0.2

# Looks whether it is done; returns how far it is (0 to 1) and what is in its way, or None when it is done.
Look = Callable[[Transaction], tuple[float, str | None] | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """One edition with what lies on disk of it. `stats` is None when there is nothing, or nothing that can be read."""

    store: VectorStore
    edition: Edition
    stats: DiskStats | None
    is_damaged: bool
    kept: tuple[int, ...]  # generations that it can go back to
    vectors: float  # the share of the chunks that have theirs
    done: float  # the share of the way to where it could be searched

    def document(self) -> dict[str, Any]:
        stats = self.stats
        return {
            "store": self.store.id,
            "name": self.store.name,
            "index": self.edition.index,
            "state": self.edition.state,
            "model": self.edition.model,
            "dimension": self.edition.dimension,
            "is_wanted": self.edition.is_wanted,
            "is_damaged": self.is_damaged,
            "rows": stats.rows if stats else 0,
            "generation": stats.generation if stats else None,
            "kept_generations": list(self.kept),
            "bytes": stats.bytes if stats else 0,
            "seq": stats.seq if stats else None,
            "vectors": round(self.vectors, 4),
            "progress": round(self.done, 4),
            "trouble": self.edition.trouble,
        }

    def cells(self) -> tuple[Cell, ...]:
        stats, edition = self.stats, self.edition
        return (
            self.store.name or self.store.id,
            edition.index,
            "damaged" if self.is_damaged else edition.state,
            f"{edition.model} ({edition.dimension})",
            stats.rows if stats else None,
            stats.generation if stats else None,
            size(stats.bytes) if stats else None,
            stats.seq if stats else None,
            None if edition.state in ("dropped", "spent") else f"{self.done:.0%}",
        )


def standing(tx: Transaction, root: Path, store: VectorStore, edition: Edition) -> Standing:
    """Return the edition with what is known of it."""
    try:
        stats, is_damaged = directory.disk_stats(root, edition.index), False
    except Damaged:
        stats, is_damaged = None, True
    all_chunks = chunks.count(tx, store.id)
    lacking = chunks.count(tx, store.id, edition.cursor) if edition.is_beside else 0
    vectors = 1.0 - lacking / all_chunks if all_chunks else 1.0
    shown = stats.seq if stats else -1
    goal = jobs.watermark(tx, store.id)
    indexed = 1.0 if shown >= goal else (stats.rows if stats else 0) / max(all_chunks, 1)
    # Nine tenths are the model's work, where there is any; what is short of all must not look like it.
    done = 0.9 * vectors + 0.1 * indexed if edition.is_beside else indexed
    return Standing(
        store,
        edition,
        stats,
        is_damaged,
        _kept(root / edition.index),
        vectors,
        done if shown >= goal else min(done, 0.999),
    )


def _kept(path: Path) -> tuple[int, ...]:
    try:
        found = manifest.read(path)
    except Damaged:
        return ()
    return tuple(one.number for _, one in retention.retained(path, found[1])) if found else ()


def all_of(tx: Transaction, root: Path, store: VectorStore) -> list[Standing]:
    """Return what there is of a store, the searched edition first."""
    rows = [editions.searched(store), *editions.listing(tx, store.id)]
    return [standing(tx, root, store, edition) for edition in rows]


def in_use(tx: Transaction, wanted: Sequence[VectorStore]) -> list[tuple[VectorStore, Edition]]:
    """Return the stores' editions that are searched, or could be."""
    return [
        (store, edition)
        for store in wanted
        for edition in (editions.searched(store), *editions.listing(tx, store.id))
        if edition.state == "searched" or edition.is_beside
    ]


def problems_of(root: Path, store: VectorStore, edition: Edition) -> list[str]:
    """Return what is wrong with the edition's files, a sentence each."""
    if edition.state == "searched" and store.is_indexed and manifest.stamp(root / edition.index) is None:
        return ["It is not there."]
    return verify(root, edition.index)


def is_ready(tx: Transaction, root: Path, edition: Edition) -> bool:
    """Return whether an edition of another model shows all that is searched now."""
    store = stores.get(tx, edition.store_id)
    return store is not None and standing(tx, root, store, edition).done == 1.0


def ring(data: Data) -> None:
    """Have the indexer look at what was ordered at once, if one runs."""
    bell = Doorbell(data.doorbell)
    bell.ring()
    bell.close()


def wait(database: Database, what: str, look: Look) -> None:
    """Return when the indexer has done it. Ctrl-C ends the wait, not the work."""
    click.echo(f"{what}. The indexer does it, now or when it runs next; Ctrl-C ends only this wait.", err=True)
    told: str | None = None
    with click.progressbar(length=1000, file=sys.stderr, show_eta=False) as bar:
        while True:
            with database.read() as tx:
                found = look(tx)
            if found is None:
                bar.update(1000 - bar.pos)
                return
            share, trouble = found
            bar.update(int(1000 * share) - bar.pos)
            if trouble is not None and trouble != told:
                click.echo(f"\nIt waits: {trouble}", err=True)
            told = trouble
            time.sleep(POLL_SECONDS)
