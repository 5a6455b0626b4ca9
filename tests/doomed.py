"""The real worker and indexer, made to die where a test says.

    with servers.server(directory, arguments=doomed.MODULES, **doomed.environment(directory)) as running:
        doomed.strike(directory, "renamed", call=2, victim=doomed.TREE)

The first process that comes to that point for the `call`-th time takes the order away and sends SIGKILL: to itself, to
the whole tree at once, or to another process. Without an order the points cost one look for a file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from ragagent import indexer, worker
from ragagent.config import Config
from ragagent.engine.catalog import Catalog
from ragagent.engine.indexing.parsing.process import ParserProcess
from ragagent.engine.ingest import Ingest
from ragagent.engine.publishing import cleaning
from ragagent.index import delta, files, generation, manifest
from ragagent.index.lexical import LexicalWriter
from ragagent.lifeline import Lifeline
from ragagent.providers.wordllama import WordLlama
from ragagent.store import chunks

MODULES = ("--worker-module", "doomed", "--indexer-module", "doomed")
ITSELF, TREE = -1, 0  # victims; a positive number is the process of that pid

# Where a process may be told to die, in the order in which a document comes by.
OF_WORKER = ("accepting", "accepted", "uploaded")
OF_PARSER = ("parsing", "parsed")
OF_PUBLISH = ("embedding", "embedded", "appending", "torn", "appended", "committed", "written", "renamed", "published")
OF_BUILD = ("building", "half built", "built", "build renamed", "build with delta", "pruning", "half pruned", "purging")
POINTS = (*OF_WORKER, *OF_PARSER, *OF_PUBLISH, *OF_BUILD)

_ORDER = "DOOMED_ORDER"


# The test's side


def environment(directory: Path) -> dict[str, str]:
    """Return what the server's environment needs, for `directory` to be where orders are left."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {_ORDER: str(directory / "order.json"), "PYTHONPATH": path}


def strike(directory: Path, point: str, *, call: int = 1, victim: int = ITSELF) -> None:
    assert point in POINTS
    temporary = directory / "order.tmp"
    temporary.write_text(json.dumps({"point": point, "call": call, "victim": victim, "id": time.time_ns()}))
    temporary.rename(directory / "order.json")


def is_struck(directory: Path) -> bool:
    return not (directory / "order.json").exists()


# The server's side


def prepare(config: Config) -> None:
    worker.prepare(config)


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    if listeners:
        _arm_worker()
        return worker.main(config, slot, listeners, lifeline)
    _arm_indexer()
    return indexer.main(config, slot, listeners, lifeline)


_left: dict[int, int] = {}  # an order's id -> how often its point is to be passed yet


def _pass(point: str) -> None:
    order = _order(point)
    if order is None:
        return
    _left[order["id"]] = _left.get(order["id"], order["call"]) - 1
    if _left[order["id"]]:
        return
    print(f"doomed: {order}", file=sys.stderr, flush=True)
    Path(os.environ[_ORDER]).unlink()
    os.kill(os.getpid() if order["victim"] == ITSELF else order["victim"], signal.SIGKILL)


def _order(point: str) -> dict[str, Any] | None:
    """Return the order to die at this point, if there is one."""
    try:
        order: dict[str, Any] = json.loads(Path(os.environ[_ORDER]).read_text())
    except FileNotFoundError:
        return None
    return order if order["point"] == point else None


def _arm_worker() -> None:
    _around_async(Ingest, "_written", "accepting", "accepted")
    _around_async(Catalog, "add_file", None, "uploaded")


def _arm_indexer() -> None:
    _around(ParserProcess, "parse", "parsing", "parsed")
    _around_async(WordLlama, "embed", "embedding", "embedded")
    _around(delta, "append", "appending", "appended")
    _around(LexicalWriter, "replace", None, "committed")
    _around(files, "write_file", None, "written")
    _around(files, "rename", None, _of_rename)
    _around(manifest, "publish", None, "published")
    _around(generation, "write", "building", "built")
    _around(files, "sync", _of_sync, None)
    _around(delta, "create", None, "build with delta")
    _around(files, "remove", _of_remove("pruning"), _of_remove("half pruned"))
    _around(chunks, "purge_replaced", "purging", None)
    files.write_at = _tearing(files.write_at)
    cleaning.GRACE_SECONDS = 0.5  # or no test would live to see what is replaced being erased


Name = str | Callable[[Any], str] | None


def _around(owner: Any, name: str, before: Name, after: Name) -> None:
    real = getattr(owner, name)

    @wraps(real)
    def passing(*arguments: Any, **named: Any) -> Any:
        _pass(_named(before, arguments))
        found = real(*arguments, **named)
        _pass(_named(after, arguments))
        return found

    setattr(owner, name, passing)


def _around_async(owner: Any, name: str, before: Name, after: Name) -> None:
    real: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @wraps(real)
    async def passing(*arguments: Any, **named: Any) -> Any:
        _pass(_named(before, arguments))
        found = await real(*arguments, **named)
        _pass(_named(after, arguments))
        return found

    setattr(owner, name, passing)


def _named(name: Name, arguments: Sequence[Any]) -> str:
    return name(arguments) if callable(name) else name or ""


def _of_rename(arguments: Sequence[Any]) -> str:
    target = Path(arguments[1])
    if target.name == manifest.NAME:
        return "renamed"
    return "build renamed" if target.name.isdigit() else ""


def _of_sync(arguments: Sequence[Any]) -> str:
    return "half built" if arguments[0].parent.suffix == ".tmp" else ""


def _of_remove(point: str) -> Callable[[Sequence[Any]], str]:
    return lambda arguments: point if arguments[0].suffix == ".delta" else ""


def _tearing(real: Callable[..., None]) -> Callable[..., None]:
    """Return a write that gets only half as far, where the order is to die of it in the middle of a delta."""

    def passing(path: Path, offset: int, data: Any) -> None:
        if path.parent.suffix == ".delta" and _order("torn"):
            real(path, offset, data.reshape(-1)[: data.size // 2])
            _pass("torn")
        real(path, offset, data)

    return passing
