"""Texts to vectors, in slices that take about a second each, and who is to blame when one fails.

A fast embedder gets large slices, a slow one small ones: what has to be done again after a kill is one slice. A slice
that fails in a way that may pass makes the next ones smaller, so that in the end one text stands alone before the
embedder; if that fails, and any other text does not, it is the text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ragagent import names, telemetry
from ragagent.errors import RagagentError, Upstream
from ragagent.providers.base import Embedder, Vectors
from ragagent.providers.embedders import Embedders
from ragagent.providers.endpoint import Refused, Transient
from ragagent.store.jobs import JobRow
from ragagent.types import EmbeddingSpace

FIRST, LARGEST = 32, 512
TARGET_SECONDS = 1.0

NO_VECTORS: Vectors = np.empty((0, 0), np.float32)


class Unembeddable(RagagentError):
    """The embedder works, but not on these texts. `is_final`: it said so; another try would be refused as well."""

    code = "server_error"

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


class Slices:
    """`size` is how many texts to give at a time."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.size = FIRST

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a row per text. Raises Upstream: the embedder is away; Unembeddable: it is these texts."""
        if not texts:
            return NO_VECTORS
        began = time.monotonic()
        try:
            vectors = await self._call(texts)
        except Upstream as exc:
            if isinstance(exc, Transient):
                is_alone, self.size = self.size == 1, max(self.size // 8, 1)
                if not is_alone or exc.retry_after is not None:
                    raise
            # Who cannot even do this is away, or set up wrongly: that is not for a document to answer for.
            await self._call(["text"])
            raise Unembeddable(exc.message, is_final=isinstance(exc, Refused)) from exc
        self._fit(len(texts), time.monotonic() - began)
        return vectors

    def _fit(self, count: int, seconds: float) -> None:
        if seconds > 2 * TARGET_SECONDS:
            self.size = max(self.size // 2, 1)
        elif seconds < TARGET_SECONDS / 2 and count >= self.size:
            self.size = min(self.size * 2, LARGEST)

    async def _call(self, texts: Sequence[str]) -> Vectors:
        with telemetry.span(
            names.EMBEDDINGS.format(model=self._embedder.model), {names.INGEST_CHUNKS: len(texts)}, kind="client"
        ):
            return await self._embedder.embed(texts)


class AllSlices:
    """The slices of each embedder: how fast one is says nothing of another."""

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders
        self._found: dict[EmbeddingSpace, Slices] = {}

    def of(self, job: JobRow) -> Slices:
        """Return those of the job's store. Raises Conflict: there is no such embedder."""
        if job.space not in self._found:
            self._found[job.space] = Slices(self._embedders.of(*job.space, "The store"))
        return self._found[job.space]
