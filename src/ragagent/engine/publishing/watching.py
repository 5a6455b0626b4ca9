"""Which stores there is something to do for. A store that stands still is not looked at, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ragagent.store import chunks, editions, jobs, stores
from ragagent.store.database import Transaction, last_seq
from ragagent.store.editions import Edition
from ragagent.types import VectorStore


@dataclass(frozen=True, slots=True)
class Task:
    """A store to look at, with the editions that are to be brought up: the searched one first."""

    store: VectorStore
    editions: tuple[Edition, ...]
    generation: int | None = None  # the searched one is to go back to this first


class Watch:
    """What was there at the last look, and the stores to look at again in any case.

    A write announces itself by its seq, and what a command wants by a row that has changed.
    """

    def __init__(self) -> None:
        self._seen: int | None = None  # the last write; None: this is the first look
        self._rows: dict[str, list[Edition]] = {}  # what stood in `editions`, by store
        self._again: set[str] = set()

    @property
    def is_new(self) -> bool:
        return self._seen is None

    def again(self, *store_ids: str) -> None:
        """Look at these next time, whether or not a write announces it."""
        self._again.update(store_ids)

    def done(self, store_id: str) -> None:
        self._again.discard(store_id)

    def look(self, tx: Transaction, shown: Callable[[Edition], int]) -> list[Task]:
        """Return the tasks; `shown` says up to where an edition's manifest shows its store.

        Each is looked at again until it is `done`: a step may fail half-way.
        """
        rows: dict[str, list[Edition]] = {}
        for edition in editions.listing(tx):
            rows.setdefault(edition.store_id, []).append(edition)
        returns = editions.returns(tx)
        self._again |= returns.keys()
        due, later = [], []
        for store in self._changed(tx, rows):
            task = Task(store, live(store, rows.get(store.id, ())), returns.get(store.id))
            watermark = jobs.watermark(tx, store.id)
            if _is_due(tx, task, watermark, shown):
                due.append(task)
            elif watermark < store.seq:
                later.append(task)  # Until its jobs are done: that changes what can be shown, and is no write.
        self._seen, self._rows = last_seq(tx), rows
        self._again = {task.store.id for task in (*due, *later)}
        return due

    def indexes(self, rows: Sequence[VectorStore]) -> set[str]:
        """Return the names of all indexes that these stores have in use."""
        return {edition.index for store in rows for edition in live(store, self._rows.get(store.id, ()))}

    def _changed(self, tx: Transaction, rows: dict[str, list[Edition]]) -> list[VectorStore]:
        again = set(self._again)
        if self.is_new:
            again |= stores.with_tombstones(tx)
        again |= {each for each in rows.keys() | self._rows.keys() if rows.get(each) != self._rows.get(each)}
        changed = {store.id: store for store in stores.changed(tx, self._seen or 0)}
        others = (stores.get(tx, store_id) for store_id in sorted(again - changed.keys()))
        return [*changed.values(), *(store for store in others if store is not None)]


def live(store: VectorStore, rows: Sequence[Edition]) -> tuple[Edition, ...]:
    return (editions.searched(store), *(row for row in rows if row.state in ("rebuild", "next", "kept")))


def is_to_be_searched(edition: Edition) -> bool:
    return edition.state == "rebuild" or edition.is_wanted


def _is_due(tx: Transaction, task: Task, watermark: int, shown: Callable[[Edition], int]) -> bool:
    return (
        not task.store.is_indexed
        or task.generation is not None
        or any(is_to_be_searched(edition) or shown(edition) != watermark for edition in task.editions)
        or bool(chunks.buried(tx, task.store.id, watermark))
    )
