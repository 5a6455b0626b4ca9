"""What the routes work with. `worker.py` builds it; a route takes it from its request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from ragagent.config import Config
from ragagent.engine.access import Access
from ragagent.engine.answering.answer import Answerer
from ragagent.engine.caches import Caches
from ragagent.engine.catalog import Catalog
from ragagent.engine.conversations.conversations import Conversations
from ragagent.engine.ingest import Ingest
from ragagent.engine.limiting.limiter import Limiter
from ragagent.engine.queue import Queue
from ragagent.engine.retrieval.retrieve import Retriever
from ragagent.providers.embedders import Embedders
from ragagent.types import Caller


@dataclass(frozen=True)
class Services:
    config: Config
    access: Access
    limiter: Limiter
    catalog: Catalog
    ingest: Ingest
    queue: Queue
    embedders: Embedders
    retriever: Retriever
    answerer: Answerer
    conversations: Conversations
    caches: Caches
    checks: Callable[[], Awaitable[Mapping[str, Any]]]  # name -> state; what /readyz reports
    started_at: int


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def caller(request: Request) -> Caller:
    """Return who asks; `Authenticate` has put it there for every path under /v1."""
    found: Caller = request.state.caller
    return found
