"""The ingest queue as a caller may see and change it: jobs, one by one, and how much waits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ragagent.config import Ingest, Quota
from ragagent.engine import editions
from ragagent.engine.admission import Admission
from ragagent.engine.catalog import Catalog
from ragagent.engine.doorbell import Doorbell
from ragagent.errors import Conflict, NotFound
from ragagent.index.searchers import Searchers
from ragagent.store import backlog, job_views, jobs, stores
from ragagent.store.backlog import Load, Rate
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, Job, VectorStore


@dataclass(frozen=True, slots=True)
class State:
    """How much waits, of every tenant's: numbers, and no names."""

    waiting: Load
    oldest_age_seconds: float
    stages: Mapping[str, int]
    rate: Rate


class Queue:
    def __init__(
        self,
        database: Database,
        searchers: Searchers,
        catalog: Catalog,
        doorbell: Doorbell,
        ingest: Ingest,
        quota: Quota,
    ) -> None:
        self._database = database
        self._searchers = searchers
        self._catalog = catalog
        self._doorbell = doorbell
        self._ingest = ingest
        self._quota = quota

    async def jobs(
        self, caller: Caller, *, store: str | None, status: str | None, after: str | None, limit: int
    ) -> list[Job]:
        """Return a page of what is not completed, newest first. Raises NotFound: the store, or the job `after`."""

        def load(tx: Transaction) -> list[Job]:
            found = self._catalog.find_store(tx, caller, store) if store else None
            rows = [found] if found else stores.of(tx, caller)
            return job_views.listing(
                tx,
                caller,
                self._lagging(rows),
                store_id=found.id if found else None,
                status=status,
                after=document_id(after) if after else None,
                limit=limit,
            )

        return await self._database.view(load)

    async def job(self, caller: Caller, job_id: str) -> Job:
        """Return the job. Raises NotFound also for one in a store that the key may not use."""
        return await self._database.view(lambda tx: self._find(tx, caller, job_id))

    async def retry(self, caller: Caller, job_id: str) -> Job:
        """Queue what failed or was cancelled again; what waits for another attempt has it now. Raises Conflict."""

        def retry(tx: Transaction) -> Job:
            job = self._find(tx, caller, job_id)
            if job.status in job_views.STAGES:
                jobs.hurry(tx, job.document_id)
            elif job.status in ("failed", "cancelled"):
                self._queue_again(tx, caller, job)
            else:
                raise Conflict(f"Job '{job_id}' is done: its document is stored.", param="job_id")
            return self._find(tx, caller, job_id)

        job = await self._database.update(retry)
        self._doorbell.ring()
        return job

    async def cancel(self, caller: Caller, job_id: str) -> Job:
        """Give a document up that is not stored yet. To cancel again changes nothing. Raises Conflict."""

        def cancel(tx: Transaction) -> Job:
            job = self._find(tx, caller, job_id)
            if job.status in job_views.STAGES:
                jobs.cancel(tx, job.document_id)
            elif job.status != "cancelled":
                over = "has failed" if job.status == "failed" else "is done: delete its document instead"
                raise Conflict(f"Job '{job_id}' cannot be cancelled, it {over}.", param="job_id")
            return self._find(tx, caller, job_id)

        job = await self._database.update(cancel)
        self._doorbell.ring()  # What came after it can be shown now.
        return job

    async def state(self) -> State:
        def load(tx: Transaction) -> State:
            stages = dict.fromkeys(job_views.STAGES, 0) | dict(backlog.stages(tx))
            stages["publishing"] = job_views.publishing(tx, self._lagging(stores.living(tx)))
            return State(backlog.load(tx), jobs.oldest_age(tx), stages, backlog.rate(tx))

        return await self._database.view(load)

    def _queue_again(self, tx: Transaction, caller: Caller, job: Job) -> None:
        if newer := job_views.versions_after(tx, job.document_id):
            raise Conflict(
                f"Job '{job_id(job)}' is of an older version of '{job.external_id}'; the newest is that of job "
                f"'job_{newer[0]}'.",
                param="job_id",
            )
        store = self._catalog.find_store(tx, caller, job.store_id)
        self._catalog.check_space(store)
        Admission(tx, self._ingest, self._quota, store, 1).admit(job.bytes)
        jobs.again(tx, job.document_id)

    def _find(self, tx: Transaction, caller: Caller, name: str) -> Job:
        job = job_views.find(tx, caller, document_id(name))
        if job is None:
            raise _unknown(name)
        store = stores.get(tx, job.store_id)
        return job_views.visible(job, self._lagging([store] if store else []))

    def _lagging(self, rows: list[VectorStore]) -> dict[str, int]:
        """Return the stores whose readers do not see their last write yet, and up to which they see."""
        seqs = {row.id: editions.seq(self._searchers, row) for row in rows}
        return {row.id: seqs[row.id] for row in rows if seqs[row.id] < row.seq}


def job_id(job: Job) -> str:
    return f"job_{job.document_id}"


def document_id(name: str) -> int:
    """Return the document whose job has that id. Raises NotFound for what is no such id."""
    found = re.fullmatch(r"job_(\d{1,18})", name, re.ASCII)
    if found is None:
        raise _unknown(name)
    return int(found[1])


def _unknown(name: str) -> NotFound:
    return NotFound(f"Job '{name:.80}' does not exist.", param="job_id")
