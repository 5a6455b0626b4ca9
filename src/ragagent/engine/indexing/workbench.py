"""What the indexer has in hand: which jobs, how far each is, and a sign of life for all of them.

What is seen of it is on disk at most twice a second: the one SQLite writer is shared with every upload.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import anyio

from ragagent.errors import RagagentError
from ragagent.store import jobs
from ragagent.store.database import Database
from ragagent.store.jobs import Holder, JobRow, Work
from ragagent.types import Job

log = logging.getLogger("ragagent.indexer")

NOTE_SECONDS = 0.5
BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0  # a holder that is silent for longer is stuck


class Workbench:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._works: dict[int, Work] = {}
        self._is_noted = True
        self._noted_at = 0.0
        self.holder = Holder(os.getpid(), started(os.getpid()) or 0)

    @property
    def document_ids(self) -> list[int]:
        return list(self._works)

    def hold(self, taken: Iterable[JobRow], stage: jobs.Stage) -> None:
        """Have jobs in hand that have just been taken; SQLite knows that already."""
        for job in taken:
            self._works[job.document_id] = Work(job.document_id, stage, job.chunks_total)
        self._noted_at = time.monotonic()

    def note(self, work: Work) -> None:
        """Say how far a job is. It is written down when the next beat is due."""
        if work.document_id in self._works:
            self._works[work.document_id] = work
            self._is_noted = False

    def drop(self, document_ids: Iterable[int]) -> None:
        for document_id in document_ids:
            self._works.pop(document_id, None)

    async def keep_beating(self) -> None:
        """Write down what is in hand, until cancelled: also while a parser or an embedder takes its time."""
        while True:
            await anyio.sleep(NOTE_SECONDS)
            if not self._is_noted or time.monotonic() - self._noted_at > BEAT_SECONDS:
                await self._write_down()

    async def _write_down(self) -> None:
        works, self._is_noted, self._noted_at = list(self._works.values()), True, time.monotonic()
        try:
            await self._database.update(lambda tx: jobs.beat(tx, works))
        except RagagentError as exc:
            log.warning("the progress of %d jobs could not be noted: %s", len(works), exc.message)


def started(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None: there is none."""
    try:
        # The name in parentheses may hold spaces, and parentheses.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def is_stuck(job: Job) -> bool:
    """Return whether somebody has taken the job and is gone, or has been silent for too long."""
    if job.holder_pid is None or job.beat_at is None:
        return False
    return started(job.holder_pid) != job.holder_start or time.time() - job.beat_at > LEASE_SECONDS
