"""The parts of one query, bare: each library called directly, one after the other, in one thread."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tantivy

from prepared import Prepared
from ragagent import config_file, text
from ragagent.index.fusion import fuse
from ragagent.providers import registry
from searching.exact import Exact, faiss
from searching.questions import Question

RESULTS = 10
LADDER = (16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048)
PARTS = ("embed", "faiss", "tantivy", "fuse", "rows", "json")

_ROWS = """SELECT c.id, c.text, c.start, c."end", d.file_id, d.attributes, f.filename
           FROM chunks c JOIN documents d ON d.id = c.document_id JOIN files f ON f.id = d.file_id WHERE c.id IN ({})"""

Leg = list[tuple[int, float]]


class Parts:
    """One store's texts in SQLite and terms in Tantivy, opened without us, and an index of faiss's own."""

    def __init__(self, prepared: Prepared, vectors: Any, exact: Exact, questions: Sequence[Question], recall: float):
        """The graph looks at as many neighbours as it takes to find what the store's own search does, `recall`."""
        self._candidates = config_file.load().retrieval.candidates
        self._weight = config_file.load().retrieval.dense_weight
        self._embedder = registry.embedder(config_file.load().embedder)
        faiss.omp_set_num_threads(1)
        self._index = vectors
        self._parameters: Any = None
        self._tantivy = tantivy.Index.open(str(next(prepared.index.glob(f"{prepared.store}/lexical"))))
        analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        self._tantivy.register_tokenizer("tokens", analyzer)
        self._searcher = self._tantivy.searcher()
        self._database = sqlite3.connect(prepared.path / "ragagent.db")
        self._database.execute("PRAGMA mmap_size = 268435456")
        self.ef_search = self._tune(exact, questions, recall)

    async def ask(self, question: str, seconds: dict[str, list[float]]) -> None:
        """Answer one question, noting what each part took."""
        clock = time.process_time  # The worker's cost is processor time, too; and what others do here is in neither.
        times = [clock()]
        vector = (await self._embedder.embed([question]))[0]
        times.append(clock())
        dense = self._dense(vector)
        times.append(clock())
        lexical = self._lexical(list(dict.fromkeys(text.tokens(question))))
        times.append(clock())
        hits = fuse(dense, lexical, dense_weight=self._weight, limit=2 * self._candidates)[:RESULTS]
        times.append(clock())
        rows = {row[0]: row for row in self._database.execute(_ROWS.format(",".join("?" * len(hits))), _ids(hits))}
        times.append(clock())
        json.dumps({"data": [_result(hit, rows[hit.chunk_id]) for hit in hits]}, ensure_ascii=False).encode()
        times.append(clock())
        for part, begun, ended in zip(PARTS, times, times[1:], strict=False):
            seconds[part].append(ended - begun)

    def close(self) -> None:
        self._database.close()

    def _dense(self, vector: Any) -> Leg:
        scores, rows = self._index.search(vector[None], self._candidates, params=self._parameters)
        return list(zip((rows[0] + 1).tolist(), scores[0].tolist(), strict=True))

    def _lexical(self, terms: list[str]) -> Leg:
        schema = self._tantivy.schema
        query = tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "tokens", term, "freq")) for term in terms]
        )
        hits = self._searcher.search(query, self._candidates, count=False).hits
        chunks = self._searcher.fast_field_values("chunk_id", [address for _, address in hits])
        return [(int(chunk), score) for chunk, (score, _) in zip(chunks, hits, strict=True) if chunk is not None]

    def _tune(self, exact: Exact, questions: Sequence[Question], recall: float) -> int:
        if not isinstance(self._index, faiss.IndexHNSW):
            return 0
        for ef_search in LADDER:
            self._parameters = faiss.SearchParametersHNSW(efSearch=ef_search)
            found = [[chunk - 1 for chunk, _ in self._dense(question.vector)] for question in questions]
            if exact.recall(found) >= recall - 1e-9:
                break
        return ef_search


def sum_ms(seconds: dict[str, list[float]]) -> float:
    """Return the milliseconds of the whole, in the mean."""
    return math.fsum(float(np.mean(seconds[part])) for part in PARTS) * 1000


def _ids(hits: Sequence[Any]) -> list[int]:
    return [hit.chunk_id for hit in hits]


def _result(hit: Any, row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "file_id": row[4],
        "filename": row[6],
        "score": hit.score,
        "attributes": json.loads(row[5]),
        "content": [{"type": "text", "text": row[1]}],
        "chunk_id": f"chunk_{row[0]}",
        "start": row[2],
        "end": row[3],
        "scores": {"dense": hit.dense, "lexical": hit.lexical},
    }
