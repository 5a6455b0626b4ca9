"""The lexical leg: BM25 over tokens of our own making, kept by Tantivy.

Tantivy sees tokens joined by spaces and splits at spaces: `ragagent.text.tokens` is the one analysis, for documents and
queries alike. Queries are built from terms, never parsed: a parser finds syntax in what users type, and raises.

A reader's view is at least as new as the manifest that it goes with, never older, and may be newer: the writer commits
here before it publishes. So a hit may be of a chunk that the manifest does not cover yet, or have lost one that it
does; who reads the chunk's text from SQLite, the truth, takes only what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import tantivy
from tantivy import Occur, Query

from ragagent.errors import Conflict
from ragagent.index import exact, files
from ragagent.index.files import Int64

MAX_TERMS = 256  # of one query; the rarest are kept
NAME = "lexical"
META = "meta.json"  # replaced atomically by each commit: it names the segments

MANAGED = ".managed.json"
SEGMENT_PARTS = ("fast", "fieldnorm", "idx", "pos", "store", "term")
_ANALYZER = "tokens"
_HEAP_BYTES = 15_000_000  # Tantivy's least for one thread; a larger commit spills into another segment

# What a filter costs inside the query, in hits fetched and dropped instead (0.3 us each; measured, 100,000 chunks).
_FILTER_COST = 500
_FILTER_COST_PER_DOCUMENT = 4


class Lexical:
    """A reader's hold on one store's Tantivy directory; `view` gives a searcher of the last commit."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged when the directory holds no index, or one that cannot be read."""
        with files.reading(_name(path)):
            self._index = tantivy.Index.open(str(path))
            self._index.register_tokenizer(_ANALYZER, _analyzer())
            self._index.config_reader("manual")  # A view changes when a manifest does, not by a timer.
        self._path = path

    def view(self) -> LexicalView:
        with files.reading(_name(self._path)):
            self._index.reload()
            return LexicalView(self._index.schema, self._index.searcher())


class LexicalView:
    """The lexical leg as of one commit. Safe for threads."""

    def __init__(self, schema: tantivy.Schema, searcher: tantivy.Searcher) -> None:
        self._schema = schema
        self._searcher = searcher

    def doc_freqs(self, terms: Iterable[str]) -> dict[str, int]:
        """Return in how many chunks each term occurs; deleted ones count until their segment is merged."""
        with files.reading("The lexical index"):
            return {term: self._searcher.doc_freq("tokens", term) for term in terms}

    def search(
        self, terms: Sequence[str], candidates: int, documents: Int64 | None, share: float
    ) -> list[tuple[int, float]]:
        """Return up to `candidates` (chunk id, BM25 score), best first; of `documents` (sorted) only, when given.

        `share` is the part of all chunks that `documents` leaves, or so: it decides how to look, not what is found.
        """
        if not terms or candidates <= 0 or (documents is not None and not len(documents)):
            return []
        query = self._query(self._bounded(terms))
        if documents is None:
            return self._hits(query, candidates)[0]
        # Where enough hits pass anyway, it is cheaper to look at more than are needed and drop the rest. One look, then
        # the sure way: hits may lie elsewhere than their share says.
        enough = min(int(2 * candidates / max(share, 1e-9)), self._searcher.num_docs)
        if enough < _FILTER_COST + _FILTER_COST_PER_DOCUMENT * len(documents):
            hits, is_all = self._hits(query, enough, documents)
            if len(hits) >= candidates or is_all:
                return hits[:candidates]
        return self._hits(self._within(query, documents), candidates)[0]

    def chunk_ids(self, first: int, last: int) -> Int64:
        """Return the chunks that stand here and have ids from `first` to `last`, in no promised order."""
        query = Query.range_query(self._schema, "chunk_id", tantivy.FieldType.Integer, first, last)
        with files.reading("The lexical index"):
            found = self._searcher.search(query, max(self._searcher.num_docs, 1), count=False).hits
            chunks = self._searcher.fast_field_values("chunk_id", [address for _, address in found])
        return np.array([chunk for chunk in chunks if chunk is not None], np.int64)

    def _query(self, terms: Iterable[str]) -> Query:
        return Query.boolean_query(
            [(Occur.Should, Query.term_query(self._schema, "tokens", term, "freq")) for term in terms]
        )

    def _within(self, query: Query, documents: Int64) -> Query:
        allowed = Query.term_set_query(self._schema, "document_id", documents.tolist())
        # Boosted by nothing: a required clause would add its own constant to every score.
        return Query.boolean_query([(Occur.Must, query), (Occur.Must, Query.boost_query(allowed, 0.0))])

    def _bounded(self, terms: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(terms))
        if len(distinct) <= MAX_TERMS:
            return distinct
        # What occurs nowhere is the rarest of all, and finds nothing: it must not use up the bound.
        frequencies = {term: count for term, count in self.doc_freqs(distinct).items() if count}
        return sorted(frequencies, key=lambda term: (frequencies[term], term))[:MAX_TERMS]

    def _hits(self, query: Query, limit: int, documents: Int64 | None = None) -> tuple[list[tuple[int, float]], bool]:
        """Return the best `limit` hits that are of `documents`, and whether there are no more than `limit` in all."""
        limit = min(limit, self._searcher.num_docs)
        if limit == 0:
            return [], True
        with files.reading("The lexical index"):
            found = self._searcher.search(query, limit, count=False).hits
            addresses = [address for _, address in found]
            chunks = self._searcher.fast_field_values("chunk_id", addresses)
            owners = self._searcher.fast_field_values("document_id", addresses) if documents is not None else []
        is_all = len(found) < limit or limit == self._searcher.num_docs
        hits = [
            (int(chunk), float(score)) for chunk, (score, _) in zip(chunks, found, strict=True) if chunk is not None
        ]
        if documents is not None:
            kept = exact.contains(documents, np.asarray(owners, np.int64))
            hits = [hit for hit, keep in zip(hits, kept.tolist(), strict=True) if keep]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0])), is_all


class LexicalWriter:
    """The one writer of a store's Tantivy directory."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged when the directory holds no index, and Conflict when another process writes there."""
        with files.reading(_name(path)):
            index = tantivy.Index.open(str(path))
            index.register_tokenizer(_ANALYZER, _analyzer())
            self._writer: tantivy.IndexWriter | None = _only_writer(index, path)
            self._writer.garbage_collect_files()  # what a writer left that was killed between writing and committing

    def replace(self, added: Iterable[tuple[int, int, str]], forgotten: Iterable[int]) -> int:
        """Forget chunks, then hold each of `added` (chunk id, document id, tokens) once, in one durable commit.

        Returns the commit's number, which `meta.json` then bears.
        """
        assert self._writer is not None, "the writer is closed"
        with files.writing("The lexical index"):
            for chunk_id in forgotten:
                self._writer.delete_documents_by_term("chunk_id", chunk_id)
            for chunk_id, document_id, tokens in added:
                # Deleted first: after a crash between this commit and the manifest, the same rows come again.
                self._writer.delete_documents_by_term("chunk_id", chunk_id)
                self._writer.add_document(_document(chunk_id, document_id, tokens))
            return int(self._writer.commit())

    def close(self) -> None:
        """Let go of the directory once merges under way are done; what was not committed is gone.

        A writer that is merely dropped leaves its merges running, and they put files where the next writer, or whoever
        removes the directory, thinks itself alone.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(ValueError):  # A merge that failed has changed nothing: the commits stand.
                writer.wait_merging_threads()


def committed(commit: bytes) -> tuple[int, list[str]]:
    """Return the number of the commit in `meta.json`, and the names of its files; once written, they never change.

    With them goes the list by which Tantivy knows, after a merge, what it may delete.
    """
    names, meta = [MANAGED], json.loads(commit)
    for segment in meta["segments"]:
        stem = segment["segment_id"].replace("-", "")
        names += [f"{stem}.{part}" for part in SEGMENT_PARTS]
        if segment["deletes"]:
            names.append(f"{stem}.{segment['deletes']['opstamp']}.del")
    return int(meta["opstamp"]), names


def create(path: Path) -> None:
    """Make an empty index in the new directory `path`."""
    path.mkdir()
    tantivy.Index(_schema(), path=str(path))
    files.sync(path)


def commit(path: Path) -> int:
    """Return the number of the last commit to the index in `path`. Raises Damaged."""
    with files.reading(_name(path)):
        return int(json.loads((path / "meta.json").read_bytes()).get("opstamp", 0))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("chunk_id", indexed=True, fast=True)
    builder.add_integer_field("document_id", indexed=True, fast=True)
    builder.add_text_field("tokens", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _analyzer() -> tantivy.TextAnalyzer:
    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()


def _document(chunk_id: int, document_id: int, tokens: str) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("chunk_id", chunk_id)
    document.add_integer("document_id", document_id)
    document.add_text("tokens", tokens)
    return document


def _only_writer(index: tantivy.Index, path: Path) -> tantivy.IndexWriter:
    try:
        # One thread: a second would cut every small commit into two segments.
        return index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    except ValueError as exc:
        if "LockBusy" not in str(exc):
            raise
        raise Conflict(f"{_name(path)} has a writer already.") from exc


def _name(path: Path) -> str:
    return f"The lexical index of store '{path.parent.name}'"
