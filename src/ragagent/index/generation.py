"""A generation: one immutable snapshot of a store's vectors, mapped and shared by every process that reads it.

    NNNNNN/vectors.faiss    Flat, or HNSW over Flat from `hnsw_rows` on
    NNNNNN/rows.i64         (n, 2): chunk id, document id; column by column, in order of (document id, chunk id)
    NNNNNN/LOCK             held shared by who maps it

Rows are ordered by document so that a filter on documents is a handful of ranges, found without a scan. faiss is
reached through this class alone: `add` on a mapped index ends the process, so there must be no way to call it.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragagent.errors import Damaged
from ragagent.index import exact, files, lock
from ragagent.index.exact import faiss
from ragagent.index.files import Float32, Int64, Mask
from ragagent.index.held import Held

LINKS = 32  # HNSW's M
EF_CONSTRUCTION = 80

_VECTORS = "vectors.faiss"
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

    def __init__(self, number: int, rows: Int64, index: Any, held: lock.Lock) -> None:
        super().__init__()
        self.number = number
        self.rows = rows
        self.vectors = _vectors(index)
        self._index = index
        self._is_graph = isinstance(index, faiss.IndexHNSW)
        self._held = held

    @classmethod
    def open(cls, store: Path, number: int, rows: int, dimension: int) -> Generation:
        """Map generation `number` of `store`. Raises Vanished, and Damaged when the files are not what was written."""
        path = generation_path(store, number)
        held = lock.shared(path / _LOCK)  # Before the first look at the files: from here on they cannot be deleted.
        if held is None:
            raise Vanished
        try:
            with files.reading(_name(path)):
                return cls(number, read_rows(path, rows), _read(path / _VECTORS, rows, dimension), held)
        except BaseException:
            held.close()
            raise

    def still_stands(self, store: Path) -> bool:
        """Return whether this is the very directory that now bears its number, not one of an index made anew."""
        return lock.identity(generation_path(store, self.number) / _LOCK) == self._held.identity

    def select(self, documents: Int64) -> Mask:
        """Return for each row whether its document is among `documents` (sorted)."""
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

        Exact where that is no dearer than the graph, and always when the generation has none.
        """
        exact.use_one_thread()
        count = min(count, len(self.rows) if selection is None else selection.count)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if selection is None:
            return self._faiss(query, count, self._parameters(ef_search))
        if not self._is_graph or self._exact_is_cheaper(selection.count, ef_search):
            found = exact.scores(query, self.vectors, selection.positions)
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
        return allowed * allowed <= LINKS * ef_search * len(self.rows)

    def _parameters(self, ef_search: int, selector: Any | None = None) -> Any:
        if self._is_graph:
            return faiss.SearchParametersHNSW(sel=selector, efSearch=ef_search)
        return faiss.SearchParameters(sel=selector)

    def _faiss(self, query: Float32, count: int, parameters: Any) -> tuple[Int64, Float32]:
        # `parameters` keeps its selector alive, and this frame keeps `parameters`: faiss itself holds no reference.
        found, positions = self._index.search(query[None], count, params=parameters)
        kept = positions[0] >= 0  # faiss fills up with -1 where it found fewer.
        return positions[0][kept], found[0][kept]

    def _close(self) -> None:
        del self._index, self.vectors, self.rows  # Unmapped first, then unlocked.
        self._held.close()


def generation_path(store: Path, number: int) -> Path:
    return store / f"{number:06d}"


def numbers(store: Path) -> list[int]:
    """Return the numbers of the generations that lie in `store`, named by its manifest or not."""
    return sorted(int(path.name) for path in store.iterdir() if path.name.isdigit())


def lock_path(store: Path, number: int) -> Path:
    return generation_path(store, number) / _LOCK


def new_index(rows: int, dimension: int, hnsw_rows: int) -> Any:
    """Return an empty index of the kind that suits `rows` rows."""
    if rows < hnsw_rows:
        return faiss.IndexFlatIP(dimension)
    index = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def write(path: Path, index: Any, rows: Int64) -> None:
    """Write a generation's files into the new directory `path`, durably. `rows` (n, 2) is in the order of `index`."""
    path.mkdir()
    files.write_at(path / _ROWS, 0, rows.T)  # A transposed write is column by column.
    faiss.write_index(index, str(path / _VECTORS))
    (path / _LOCK).touch()
    for name in (_VECTORS, _LOCK):
        files.sync(path / name)
    files.sync(path)


def read_rows(path: Path, rows: int) -> Int64:
    """Return the generation's rows (n, 2), mapped. Raises FileNotFoundError, Damaged."""
    return files.mapped(path / _ROWS, np.int64, 2, rows).T


def _read(path: Path, rows: int, dimension: int) -> Any:
    # IO_FLAG_MMAP would map IVF alone and quietly load every other kind into private memory.
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    name = _name(path.parent)
    if not isinstance(index, faiss.IndexFlatIP | faiss.IndexHNSWFlat):
        raise Damaged(f"{name} is a {type(index).__name__}, not one of ours.")
    if (index.ntotal, index.d, index.metric_type) != (rows, dimension, faiss.METRIC_INNER_PRODUCT):
        raise Damaged(f"{name} holds {index.ntotal} rows of {index.d}; its manifest says {rows} of {dimension}.")
    if rows and not _is_mapped(path, _vectors(index).ctypes.data):
        raise Damaged(f"{name} was loaded into private memory; it must be mapped.")
    return index


def _name(path: Path) -> str:
    return f"Generation {path.name} of store '{path.parent.name}'"


def _vectors(index: Any) -> Float32:
    """Return the index's own vectors (n, d), read-only and not copied: valid for as long as the index lives."""
    if not index.ntotal:
        return np.empty((0, index.d), np.float32)
    flat = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    view: Float32 = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    view.flags.writeable = False
    return view


def _is_mapped(path: Path, address: int) -> bool:
    """Return whether the memory at `address` is a mapping of the file at `path`."""
    name = os.fsencode(os.path.realpath(path))
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            if line.endswith(b" " + name + b"\n"):
                first, last = (int(bound, 16) for bound in line.split(b" ", 1)[0].split(b"-"))
                if first <= address < last:
                    return True
    return False
