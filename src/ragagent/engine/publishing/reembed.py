"""A store's way to another model: the vectors of its chunks made anew, a slice at a time, beside all that goes on.

One cursor, by chunk id, does both: it goes through what there is, and then follows what comes. It moves in the
transaction that stores the vectors, so a crash costs one slice. After a cutover it follows for the edition that was
left, for as long as one may want to go back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from ragagent import names, telemetry
from ragagent.errors import RagagentError
from ragagent.providers.embedders import Embedders
from ragagent.store import edition_vectors, editions
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition

log = logging.getLogger("ragagent.indexer")

SLICE_CHUNKS = 64
IDLE_SECONDS = 0.5
RETRY_SECONDS = 5.0


class Reembedder:
    """One task runs it. It shares nothing with the publisher but the rows in SQLite."""

    def __init__(
        self, database: Database, embedders: Embedders, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._database = database
        self._embedders = embedders

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                rest = await self.turn()
            except RagagentError as exc:
                log.error("vectors cannot be made now, will try again: %s", exc.message)
                rest = RETRY_SECONDS
            await asyncio.sleep(rest)

    async def turn(self) -> float:
        """Make one slice of vectors for each edition that lacks some; return how many seconds to rest then.

        The rest is what keeps the work below its share of the time: serving and ingest have the others.
        """
        rests = [await self._slice(edition) for edition in await self._database.view(_lacking)]
        return sum(rests) if rests else IDLE_SECONDS

    async def _slice(self, edition: Edition) -> float:
        started = self._clock()
        try:
            embedder = self._embedders.of(edition.model, edition.dimension, f"Edition '{edition.index}'")
            found = await self._database.view(lambda tx: edition_vectors.lacking(tx, edition, SLICE_CHUNKS))
            with telemetry.span(names.EMBEDDINGS.format(model=edition.model), {names.INGEST_CHUNKS: len(found)}):
                vectors = await embedder.embed([text for _, text in found])
        except RagagentError as exc:
            # The others go on. Who looks at the edition sees why this one does not.
            if exc.message != edition.trouble:
                log.warning("no vectors of '%s' for %s: %s", edition.model, edition.store_id, exc.message)
                await self._database.update(partial(_note, edition, exc.message))
            return RETRY_SECONDS
        ids = [chunk_id for chunk_id, _ in found]
        await self._database.update(lambda tx: edition_vectors.give(tx, edition, ids, vectors))
        return (self._clock() - started) * (1 / edition.budget - 1)


def _lacking(tx: Transaction) -> list[Edition]:
    rows = editions.listing(tx)
    # The table that the next edition fills may still hold vectors of one that was given up.
    clearing = {row.store_id for row in rows if row.state == "dropped"}
    return [
        row for row in rows if row.is_beside and row.store_id not in clearing and edition_vectors.lacks_any(tx, row)
    ]


def _note(edition: Edition, trouble: str, tx: Transaction) -> None:
    editions.note_trouble(tx, edition, trouble)
