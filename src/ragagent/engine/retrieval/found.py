"""What a search found, before its text is read: what the cache keeps of a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragagent.store import chunks
from ragagent.store.database import Transaction
from ragagent.types import Evidence, Hit


@dataclass(frozen=True, slots=True)
class Found:
    """Hits in rank order with their stores, and what each store's searcher showed then."""

    hits: tuple[tuple[str, Hit], ...]
    seqs: Mapping[str, int]
    generations: Mapping[str, int]
    frequencies: Mapping[str, int]  # in how many chunks each token of the question stands
    chunks: int  # that were searched

    def pack(self) -> dict[str, Any]:
        return {
            "hits": [(store_id, hit.chunk_id, hit.score, hit.dense, hit.lexical) for store_id, hit in self.hits],
            "seqs": self.seqs,
            "generations": self.generations,
            "frequencies": self.frequencies,
            "chunks": self.chunks,
        }

    @classmethod
    def unpack(cls, value: Mapping[str, Any]) -> Found:
        return cls(
            hits=tuple((store_id, Hit(*hit)) for store_id, *hit in value["hits"]),
            seqs=value["seqs"],
            generations=value["generations"],
            frequencies=value["frequencies"],
            chunks=value["chunks"],
        )

    def evidence(self, tx: Transaction, limit: int) -> list[Evidence]:
        """Return the first `limit` hits that are still there. In slices: what is gone leaves its place to the next."""
        evidence: list[Evidence] = []
        for first in range(0, len(self.hits), limit):
            wanted = self.hits[first : first + limit]
            by_store: dict[str, list[Hit]] = {}
            for store_id, hit in wanted:
                by_store.setdefault(store_id, []).append(hit)
            read = {
                item.chunk_id: item
                for store_id, hits in by_store.items()
                for item in chunks.evidence(tx, store_id, hits, self.seqs[store_id])
            }
            evidence += [read[hit.chunk_id] for _, hit in wanted if hit.chunk_id in read]
            if len(evidence) >= limit:
                break
        return evidence[:limit]
