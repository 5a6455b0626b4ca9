"""The vectors of a generation as faiss stores them: float32, or one byte a dimension under a graph.

int8 is `QT_8bit`: each dimension's range, as found in a sample, cut into 256. A quarter of the memory; inner products
are off by 0.0004, at most 0.003 (WordLlama, 256 dimensions), and recall@10 is .987 before any graph. Whoever needs
float32 of it again, as a merge does, gets what the codes say. To cut that by other ranges costs another half a percent
each time; by the same ones nothing. So a store keeps its ranges for as long as what comes fits them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragagent.errors import Damaged
from ragagent.index import exact
from ragagent.index.exact import faiss
from ragagent.index.files import Float32, Int64

NAME = "vectors.faiss"
TRAIN_ROWS = 65_536  # the sample that int8's ranges come from

_OUTSIDE = 0.01
_BLOCK = 4096  # codes decoded at once: 4 MB of float32 at 256 dimensions


class Storage:
    """Vectors (n, d), by position. Read-only, and valid for as long as `index` lives."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.is_int8 = isinstance(index, faiss.IndexScalarQuantizer)
        kind, width = (np.uint8, index.code_size) if self.is_int8 else (np.float32, index.d)
        self._data: Any = np.empty((0, width), kind)
        if index.ntotal:
            pointer = index.codes.data() if self.is_int8 else index.get_xb()
            self._data = faiss.rev_swig_ptr(pointer, index.ntotal * width).reshape(index.ntotal, width)
        self._data.flags.writeable = False

    @property
    def address(self) -> int:
        return int(self._data.ctypes.data)

    def take(self, positions: Int64) -> Float32:
        """Return the vectors at `positions` (m,), copied: (m, d)."""
        found = self._data[positions]
        return np.asarray(self.index.sa_decode(found) if self.is_int8 and len(found) else found, np.float32)

    def scores(self, query: Float32, positions: Int64) -> Float32:
        """Return the inner product of `query` (d,) with each vector at `positions` (m,)."""
        if not self.is_int8:
            return exact.scores(query, self._data, positions)
        return np.concatenate([np.empty(0, np.float32), *self._decoded_scores(query, positions)])

    def fits(self, vectors: Float32) -> bool:
        """Return whether the ranges of these bytes are right for `vectors` (m, d): hardly a value lies outside."""
        least, width = faiss.vector_to_array(self.index.sq.trained).reshape(2, -1)
        outside = (vectors < least) | (vectors > least + width)
        return float(np.mean(outside)) <= _OUTSIDE

    def _decoded_scores(self, query: Float32, positions: Int64) -> Iterator[Float32]:
        for start in range(0, len(positions), _BLOCK):
            yield exact.scores(query, self.take(positions[start : start + _BLOCK]))


def new(dimension: int, *, is_int8: bool) -> Any:
    if is_int8:
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexFlatIP(dimension)


def adopt_ranges(index: Any, source: Storage) -> None:
    """Give the untrained `index` the ranges of `source`: what was cut by them is cut in the same places again."""
    index.sq.trained = source.index.sq.trained
    index.is_trained = True


def read(path: Path, rows: int, dimension: int, name: str) -> Any:
    """Return the faiss index in the directory `path`, mapped. Raises Damaged, RuntimeError."""
    # IO_FLAG_MMAP would map IVF alone and quietly load every other kind into private memory.
    index = faiss.read_index(str(path / NAME), faiss.IO_FLAG_MMAP_IFC)
    if not isinstance(index, faiss.IndexFlatIP | faiss.IndexScalarQuantizer):
        raise Damaged(f"{name} is a {type(index).__name__}, not one of ours.")
    if (index.ntotal, index.d, index.metric_type) != (rows, dimension, faiss.METRIC_INNER_PRODUCT):
        raise Damaged(f"{name} holds {index.ntotal} rows of {index.d}; its manifest says {rows} of {dimension}.")
    if rows and not _is_mapped(path / NAME, Storage(index).address):
        raise Damaged(f"{name} was loaded into private memory; it must be mapped.")
    return index


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
