"""Whether a write may add to the queue and to its store: decided in the write's own transaction, before it stores.

So a refusal leaves nothing half-written, and two writers cannot both take the last place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ragagent.config import MIB, Ingest, Quota
from ragagent.errors import Limited, OverQuota
from ragagent.store import backlog
from ragagent.store.backlog import Load
from ragagent.store.database import Transaction
from ragagent.types import Document, VectorStore

PAUSE_SECONDS = (1.0, 60.0)  # what is asked of a refused client, at least and at most; openai's obeys up to 60
UNKNOWN_PAUSE_SECONDS = 5.0  # nothing has left the queue lately

_REPLACED = ("in_progress", "completed")


class Admission:
    """One write of `asked` documents to one store. `admit` each that is new, before it is stored."""

    def __init__(self, tx: Transaction, ingest: Ingest, quota: Quota, store: VectorStore, asked: int) -> None:
        self._tx = tx
        self._queue_limit = Load(ingest.max_queue_documents, ingest.max_queue_bytes)
        self._quota = Load(quota.store_documents, quota.store_bytes)
        self._store = store
        self._asked = asked
        self._waiting = backlog.load(tx)
        self._used = self._usage() if quota.store_documents or quota.store_bytes else None
        self._added = Load()

    def admit(self, size: int, replaced: Sequence[Document] = ()) -> None:
        """Take a document of so many bytes in. Raises Limited, with the time to wait, and OverQuota.

        `replaced` are the living versions that it is going to replace, newest first: they make room for it.
        """
        self._added = Load(self._added.documents + 1, self._added.bytes + size)
        self._check_queue()
        if self._used is not None:
            self._check_quota(size, next((row for row in replaced if row.status in _REPLACED), None))

    def _check_queue(self) -> None:
        # What is larger than the whole queue may be is taken when nothing waits: else it never would be.
        if not self._waiting.documents:
            return
        limit, after = self._queue_limit, self._waiting + self._added
        over = Load(
            max(after.documents - limit.documents, 0) if limit.documents else 0,
            max(after.bytes - limit.bytes, 0) if limit.bytes else 0,
        )
        if over.documents or over.bytes:
            # It is refused at the first that finds no room; the others would need some as well.
            pause = self._pause(Load(over.documents + self._asked - self._added.documents, over.bytes))
            raise Limited(
                f"The ingest queue is full: {self._waiting.documents} documents of {self._waiting.bytes / MIB:.1f} MiB "
                f"wait (ingest.max_queue_documents, ingest.max_queue_bytes). Nothing was stored; try again in "
                f"{math.ceil(pause)} s.",
                retry_after=pause,
            )

    def _pause(self, over: Load) -> float:
        """Return the seconds that the queue, as fast as it has been lately, needs to make room."""
        rate = backlog.rate(self._tx)
        if not rate.documents:
            return UNKNOWN_PAUSE_SECONDS
        by_documents, by_bytes = over.documents / rate.documents, over.bytes / rate.bytes if rate.bytes else 0.0
        shortest, longest = PAUSE_SECONDS
        return min(max(by_documents, by_bytes, shortest), longest)

    def _usage(self) -> Load:
        return backlog.usage(self._tx, self._store.id) - backlog.superseded(self._tx, self._store.id)

    def _check_quota(self, size: int, replaced: Document | None) -> None:
        assert self._used is not None
        freed = Load(1, backlog.weight(self._tx, replaced.id)) if replaced else Load()
        used, self._used = self._used, self._used + Load(1, size) - freed
        for noun, limit, before, after, key in (
            ("documents", self._quota.documents, used.documents, self._used.documents, "store_documents"),
            ("bytes", self._quota.bytes, used.bytes, self._used.bytes, "store_bytes"),
        ):
            # What makes a store smaller, or leaves it as it is, is let in also where the limit was lowered meanwhile.
            if limit and after > max(limit, before):
                raise OverQuota(
                    f"Vector store '{self._store.name or self._store.id}' may hold {limit} {noun} (quota.{key}); it "
                    f"holds {before}, and this write would make that {after}. Nothing was stored."
                )
