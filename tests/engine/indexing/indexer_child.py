"""An indexer that is gone at a given point, as after kill -9: `indexer_child.py DIRECTORY POINT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))

from fakes import BagOfWords, InProcessParser  # the tests' folder is on the path only now
from ragagent import config
from ragagent.engine.indexing.drafting import Drafter
from ragagent.engine.indexing.indexer import Indexer
from ragagent.engine.publishing.publisher import Publisher
from ragagent.index import delta, manifest
from ragagent.index.lexical import LexicalWriter
from ragagent.providers.embedders import Embedders
from ragagent.store.database import Database

# Where the process ends: behind this call.
POINTS: dict[str, tuple[Any, str]] = {
    "parsed": (Drafter, "_cut"),
    "embedded": (BagOfWords, "embed"),
    "stored": (Indexer, "_ingest"),
    "appended": (delta, "append"),
    "committed": (LexicalWriter, "replace"),
    "published": (manifest, "publish"),
}


def end_behind(owner: Any, name: str) -> None:
    real = getattr(owner, name)

    async def ending_async(*arguments: Any, **named: Any) -> None:
        await real(*arguments, **named)
        os._exit(9)

    def ending(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        os._exit(9)

    setattr(owner, name, ending_async if name in ("embed", "_ingest") else ending)


async def main(root: Path, point: str) -> None:
    end_behind(*POINTS[point])
    database = Database.open(root / "ragagent.db")
    publisher = Publisher(database, root / "index", config.Ingest())
    indexer = Indexer(database, publisher, InProcessParser(), Embedders(BagOfWords()))
    while await indexer.step():
        pass


anyio.run(main, Path(sys.argv[1]), sys.argv[2])
