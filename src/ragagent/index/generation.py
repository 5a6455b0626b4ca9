"""A generation: one immutable snapshot of a store's vectors, mapped and shared by every process that reads it.

    NNNNNN/vectors.faiss    the vectors, as `storage` keeps them
    NNNNNN/rows.i64         (n, 2): chunk id, document id; column by column, in order of (document id, chunk id)
    NNNNNN/...              from `hnsw_rows` rows on the links of a graph over them, as `graph` keeps them
    NNNNNN/CHECKSUMS        the length and checksum of each of these
    NNNNNN/LOCK             held shared by who maps it

Rows are ordered by document so that a narrow filter on documents is a handful of ranges, found without a scan. faiss is
reached through this class alone: `add` on a mapped index ends the process, so there must be no way to call it.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ragagent.errors import Damaged
from ragagent.index import checksums, exact, files, graph, lock, storage
from ragagent.index.exact import faiss
from ragagent.index.files import Float32, Int64, Mask
from ragagent.index.held import Held
from ragagent.index.manifest import Part
from ragagent.index.storage import Storage

Kind = Literal["flat", "hnsw", "hnsw-int8"]

_ROWS_PER_RANGE = 256  # A document is found in 0.3 us, a row is looked at in 1.3 ns: then the two cost the same.
_ROWS = "rows.i64"
_LOCK = "LOCK"


class Vanished(Exception):
    """The generation that a manifest named is gone or about to go: there is a newer manifest. Never leaves `index`."""


class Selection:
    """The rows that a search may return: a bitmap for the graph, positions for scoring them one by one."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @cached_property
    def positions(self) -> Int64:
        return np.flatnonzero(self.mask).astype(np.int64, copy=False)

    @cached_property
    def bitmap(self) -> npt.NDArray[np.uint8]:
        return np.packbits(self.mask, bitorder="little")


class Generation(Held):
    """One generation, mapped and locked shared until the last holder releases it. Safe for threads."""

    def __init__(
        self, part: Part, rows: Int64, index: Any, vectors: Storage, links: graph.Links | None, held: lock.Lock
    ) -> None:
        super().__init__()
        self.part = part
        self.rows = rows
        self.vectors = vectors
        self._index = index
        self._links = links  # faiss looks into these and holds no reference
        self._held = held

    @classmethod
    def open(cls, store: Path, part: Part, dimension: int) -> Generation:
        """Map one generation of `store`. Raises Vanished, and Damaged when the files are not what was written.

        Looks at lengths and heads only; `check` looks at every byte.
        """
        path = generation_path(store, part.number)
        held = lock.shared(path / _LOCK)  # Before the first look at the files: from here on they cannot be deleted.
        if held is None:
            raise Vanished
        try:
            with files.reading(_name(path)):
                noted = checksums.read(path)
                rows = read_rows(path, part.rows)
                index = vectors = storage.read(path, part.rows, dimension, _name(path))
                links = None
                if graph.NEIGHBOURS in noted:
                    index, links = graph.read(path, vectors)
                return cls(part, rows, index, Storage(vectors), links, held)
        except BaseException:
            held.close()
            raise

    @property
    def kind(self) -> Kind:
        if self._links is None:
            return "flat"
        return "hnsw-int8" if self.vectors.is_int8 else "hnsw"

    def still_stands(self, store: Path) -> bool:
        """Return whether this is the very directory that now bears its number, not one of an index made anew."""
        return lock.identity(lock_path(store, self.part.number)) == self._held.identity

    def select(self, documents: Int64) -> Mask:
        """Return for each row whether its document is among `documents` (sorted)."""
        column = self.rows[:, 1]
        if len(documents) < len(column) // _ROWS_PER_RANGE:
            return self._ranges(documents)
        return exact.contains_many(documents, column)

    def _ranges(self, documents: Int64) -> Mask:
        mask = np.zeros(len(self.rows), np.bool_)
        column = self.rows[:, 1]
        first = np.searchsorted(column, documents, "left")
        counts = np.searchsorted(column, documents, "right") - first
        # The ranges [first, first + count) laid end to end: their starts, repeated, plus a running count within each.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        mask[np.repeat(first, counts) + within] = True
        return mask

    def search(self, query: Float32, count: int, selection: Selection | None, ef_search: int) -> tuple[Int64, Float32]:
        """Return up to `count` positions of the best rows with their inner products, in no promised order.

        Exact where that is no dearer than the graph, and always when the generation has none. `ef_search` 0: as many
        as the graph's size asks for.
        """
        ef_search = ef_search or graph.ef_search(len(self.rows), is_int8=self.vectors.is_int8)
        exact.use_one_thread()
        count = min(count, len(self.rows) if selection is None else selection.count)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if selection is None:
            return self._faiss(query, count, self._parameters(ef_search))
        if self._links is None or self._exact_is_cheaper(selection.count, ef_search):
            found = self.vectors.scores(query, selection.positions)
            top = exact.best(found, count)
            return selection.positions[top], found[top]
        # The graph looks at allowed and other rows alike: to meet as many allowed ones it must look further.
        wider = math.ceil(ef_search * len(self.rows) / selection.count)
        selector = faiss.IDSelectorBitmap(selection.bitmap)
        return self._faiss(query, count, self._parameters(wider, selector))

    def _exact_is_cheaper(self, allowed: int, ef_search: int) -> bool:
        """Return whether scoring all `allowed` rows takes fewer inner products than the graph.

        Widened as above, the graph visits ef * n / allowed nodes of `LINKS` neighbours each. At n = 100,000 and ef 64
        the two meet at 14 % of the rows; measured on 50,000, the graph is if anything later than this.
        """
        return allowed * allowed <= graph.LINKS * ef_search * len(self.rows)

    def _parameters(self, ef_search: int, selector: Any | None = None) -> Any:
        if self._links is not None:
            return faiss.SearchParametersHNSW(sel=selector, efSearch=ef_search)
        return faiss.SearchParameters(sel=selector)

    def _faiss(self, query: Float32, count: int, parameters: Any) -> tuple[Int64, Float32]:
        # `parameters` keeps its selector alive, and this frame keeps `parameters`: faiss itself holds no reference.
        found, positions = self._index.search(query[None], count, params=parameters)
        kept = positions[0] >= 0  # faiss fills up with -1 where it found fewer.
        return positions[0][kept], found[0][kept]

    def _close(self) -> None:
        del self._index, self.vectors, self.rows, self._links  # Unmapped first, then unlocked.
        self._held.close()


def generation_path(store: Path, number: int) -> Path:
    return store / f"{number:06d}"


def numbers(store: Path) -> list[int]:
    """Return the numbers of the generations that lie in `store`, named by its manifest or not."""
    return sorted(int(path.name) for path in store.iterdir() if path.name.isdigit())


def lock_path(store: Path, number: int) -> Path:
    return generation_path(store, number) / _LOCK


def new_index(rows: int, dimension: int, hnsw_rows: int, is_int8: bool = False) -> Any:
    """Return an empty index of the kind that suits `rows` rows, `is_trained` or still to be."""
    if rows < hnsw_rows:
        return storage.new(dimension, is_int8=False)
    return graph.over(storage.new(dimension, is_int8=is_int8))


def adopt_ranges(index: Any, source: Generation) -> None:
    """Spare an untrained index its training: it cuts bytes as `source` does, which has them."""
    storage.adopt_ranges(faiss.downcast_index(index.storage), source.vectors)
    index.is_trained = True


def write(path: Path, index: Any, rows: Int64) -> None:
    """Write a generation's files into the new directory `path`, durably. `rows` (n, 2) is in the order of `index`."""
    path.mkdir()
    names = [_ROWS, storage.NAME]
    files.write_at(path / _ROWS, 0, rows.T)  # A transposed write is column by column.
    if isinstance(index, faiss.IndexHNSW):
        graph.write(path, index)
        names += graph.NAMES
        index = faiss.downcast_index(index.storage)
    faiss.write_index(index, str(path / storage.NAME))
    (path / _LOCK).touch()
    for name in (storage.NAME, _LOCK):
        files.sync(path / name)
    checksums.write(path, names)
    files.sync(path)


def read_rows(path: Path, rows: int) -> Int64:
    """Return the generation's rows (n, 2), mapped. Raises FileNotFoundError, Damaged."""
    return files.mapped(path / _ROWS, np.int64, 2, rows).T


def kind_on_disk(path: Path, rows: int, dimension: int) -> Kind:
    """Return the kind of the generation in `path` by its files alone. Raises FileNotFoundError, Damaged."""
    noted = checksums.read(path)
    if graph.NEIGHBOURS not in noted:
        return "flat"
    return "hnsw" if noted[storage.NAME].bytes >= rows * dimension * 4 else "hnsw-int8"


def check(store: Path, number: int, *, vectors: bool) -> None:
    """Read a generation's files and compare them with their checksums; the vectors, nearly all of it, if wanted.

    Raises Damaged. Rows and links are checked by every writer: a link into nowhere would end its readers.
    """
    path = generation_path(store, number)
    with files.reading(_name(path)):
        for name, checksum in checksums.read(path).items():
            if (vectors or name != storage.NAME) and checksums.of_file(path / name) != checksum:
                raise Damaged(f"File '{path.name}/{name}' does not match its checksum.")


def _name(path: Path) -> str:
    return f"Generation {path.name} of store '{path.parent.name}'"
