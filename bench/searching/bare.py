"""faiss alone over a store's vectors, of the kind that the size asks for; made once and kept beside the stores."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from corpus import Corpus, directory, vectors
from ragagent import config_file
from searching import kinds
from searching.exact import faiss


def index(corpus: Corpus, size: int) -> Any:
    """Return it mapped: exact below `ingest.hnsw_rows`, a graph from there on."""
    kind = kinds.FLAT if size < config_file.load().ingest.hnsw_rows else kinds.HNSW
    path = directory(corpus) / f"{kind.name.lower()}-{size}.faiss"
    if not path.exists():
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        rows = vectors(corpus, size)
        made = kind.make(rows)
        for first in range(0, size, kinds.BATCH):
            made.add(np.ascontiguousarray(rows[first : first + kinds.BATCH]))
        faiss.write_index(made, str(path.with_suffix(".tmp")))
        path.with_suffix(".tmp").rename(path)
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
