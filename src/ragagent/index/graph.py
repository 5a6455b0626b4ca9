"""HNSW on disk: the links between rows, beside the storage that holds their vectors.

    starts.i64    (n + 1): where each row's links begin
    links.i32     every row's links, level by level; -1 where there is none
    entry.i64     (2): the row where a search begins, and its level

faiss' own file of the whole would do, but to open it faiss copies and then walks all links: 65 ms for a million rows,
and 270 MB off the disk before the first search. Mapped like this it is 5 ms, of which all is the copy of `starts`. What
faiss looked for, links into nowhere, the writer's checksums find.

Build time against recall (WordLlama vectors, 63,000 x 256; CPU seconds to build, then what reaches recall@10 of .957):
efConstruction 80: 13 s, ef 120, 365 us; 128: 22 s, ef 80, 300 us; 200: 38 s, ef 64, 270 us.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragagent.errors import Damaged
from ragagent.index import files
from ragagent.index.exact import faiss

LINKS = 32  # HNSW's M
EF_CONSTRUCTION = 128
STARTS = "starts.i64"
NEIGHBOURS = "links.i32"
ENTRY = "entry.i64"
NAMES = (STARTS, NEIGHBOURS, ENTRY)

_EF_LEAST, _EF_ROWS, _EF_POWER = 72, 20_000, 0.3  # 72 up to 20,000 rows, then by this power of them
_EF_INT8 = 1.25

Links = npt.NDArray[np.int32]


def over(storage: Any) -> Any:
    """Return a graph without links over `storage`, which it keeps alive."""
    index = faiss.IndexHNSW(storage, LINKS)
    storage.this.disown()
    index.own_fields = True
    index.is_trained = storage.is_trained
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def write(path: Path, index: Any) -> None:
    """Write the links of `index` into the directory `path`, durably."""
    hnsw = index.hnsw
    files.write_at(path / STARTS, 0, faiss.rev_swig_ptr(hnsw.offsets.data(), hnsw.offsets.size()).view(np.int64))
    files.write_at(path / NEIGHBOURS, 0, faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size()))
    files.write_at(path / ENTRY, 0, np.array([hnsw.entry_point, hnsw.max_level], np.int64))


def read(path: Path, storage: Any) -> tuple[Any, Links]:
    """Return the graph whose files lie in `path` over `storage`, and the map of its links, which must outlive it.

    Raises FileNotFoundError, Damaged.
    """
    rows = storage.ntotal
    starts = files.mapped(path / STARTS, np.int64, rows + 1, 1)[:, 0]
    entry, level = files.mapped(path / ENTRY, np.int64, 2, 1)[:, 0].tolist()
    links = files.mapped(path / NEIGHBOURS, np.int32, int(starts[-1]), 1)[:, 0]
    index = over(storage)
    if not 0 <= entry < rows or not 0 <= level < index.hnsw.cum_nneighbor_per_level.size():
        raise Damaged(f"The graph of '{path.name}' begins at row {entry}, level {level}; it has {rows} rows.")
    faiss.copy_array_to_vector(starts.view(np.uint64), index.hnsw.offsets)
    # faiss wants an owner to hold on to for a view that is not its own; the storage's will do.
    owner = storage.codes.owner
    index.hnsw.neighbors = faiss.MaybeOwnedVectorInt32.create_view(faiss.swig_ptr(links), len(links), owner)
    index.hnsw.entry_point, index.hnsw.max_level = entry, level
    index.ntotal = rows
    return index, links


def ef_search(rows: int, *, is_int8: bool) -> int:
    """Return how many candidates a search must keep so that recall@10 is .95 or more in a graph of `rows` rows.

    From curves measured on mixtures of WordLlama vectors, 256 dimensions, 300 queries: ef, recall@10, and us of a
    search, read off between the measured points. The last line is of a graph built with efConstruction 80.

    rows         float32                int8
    10,000       72   .980     98
    20,000       72   .973    140
    63,000      102   .965    330
    200,000     144   .961    500      180   .957    550
    1,000,000   233   .954    970
    """
    wider = _EF_INT8 if is_int8 else 1.0
    return math.ceil(wider * max(_EF_LEAST, _EF_LEAST * math.pow(max(rows, 1) / _EF_ROWS, _EF_POWER)))
