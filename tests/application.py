"""The real application in the test's own process: what a worker is made of, with an indexer that steps beside it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
from pydantic import BaseModel
from starlette.applications import Starlette

from fakes import InProcessParser
from ragagent import config, config_file, worker
from ragagent.api.app import build
from ragagent.api.services import Services
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.engine.answering.answer import Answerer
from ragagent.engine.indexing.indexer import Indexer
from ragagent.engine.publishing.publisher import Publisher
from ragagent.providers.base import Generator
from ragagent.store import keys
from ragagent.store.database import Database

M = TypeVar("M", bound=BaseModel)

TEXTS = {
    "bridge": "The Øresund Bridge opened on 1 July 2000. It joins Copenhagen with Malmö.",
    "wall": "The Great Wall of China has a total length of 21,196 kilometres.",
    "coffee": "Coffee plants are native to Ethiopia.",
}


@dataclass
class Api:
    """A running application and a client of it."""

    services: Services
    app: Starlette
    http: httpx.AsyncClient

    @property
    def config(self) -> config.Config:
        return self.services.config

    @property
    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url="http://test/v1", api_key="any", http_client=self.http, max_retries=0)  # type: ignore[arg-type]  # It takes httpx's client as well as its successor's.

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """Return what a request that must succeed is answered with."""
        reply = await self.http.request(method, path, **options)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def refusal(self, status: int, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the error that a request must be answered with."""
        reply = await self.http.request(method, path, **options)
        assert reply.status_code == status, reply.text
        error: dict[str, Any] = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    async def store(self, name: str = "facts", **texts: str) -> str:
        created: str = (await self.json("POST", "/v1/vector_stores", json={"name": name}))["id"]
        if texts:
            await self.upsert(created, **texts)
        return created

    async def upsert(self, store: str, **texts: str) -> list[dict[str, Any]]:
        documents = [{"external_id": name, "text": text} for name, text in texts.items()]
        body = {"store": store, "documents": documents}
        data: list[dict[str, Any]] = (await self.json("POST", "/v1/ragagent/documents", json=body))["data"]
        return data

    async def upload(self, text: str = "A text.", filename: str = "a.txt", **fields: str) -> str:
        form = {"purpose": "assistants", **fields}
        uploaded = await self.json("POST", "/v1/files", files={"file": (filename, text.encode())}, data=form)
        return str(uploaded["id"])

    def key(self, name: str = "key", *, tenant: str = "default") -> str:
        """Return the token of a new API key."""
        with closing(Database.open(self.config.data.database)) as database, database.write() as tx:
            return keys.add(tx, keys.pepper(self.config.data.pepper), tenant=tenant, name=name, stores=None)[1]

    @contextmanager
    def speaking(self, generator: Generator) -> Iterator[Starlette]:
        """Yield an application over the same parts whose answers this generator writes, and that keeps none."""
        cache = TieredCache(LocalCache(0), enabled=False)
        answerer = Answerer(self.services.retriever, generator, cache, self.config.retrieval, life=Life(0))
        yield build(dataclasses.replace(self.services, answerer=answerer))


@asynccontextmanager
async def running(root: Path, *, indexing: bool = True, **env: str) -> AsyncIterator[Api]:
    settings = config_file.load(environ={"RAGAGENT_DATA__DIR": str(root / "data"), **env})
    settings.data.index.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        services, _ = await worker._open(settings, 0, stack)
        app = build(services)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))
        if indexing:
            await stack.enter_async_context(_indexing(services))
        yield Api(services, app, http)


@asynccontextmanager
async def _indexing(services: Services) -> AsyncIterator[None]:
    settings = services.config
    database = Database.open(settings.data.database)
    publisher = Publisher(database, settings.data.index, settings.ingest)
    indexer = Indexer(database, publisher, InProcessParser(), services.embedders)
    leaving = False

    async def work() -> None:
        while not leaving:
            if not await indexer.step():
                await asyncio.sleep(0.002)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        leaving = True
        await task  # A step that failed fails the test here.
        await publisher.close()
        database.close()


def conforms(kind: type[M], reply: httpx.Response | dict[str, Any]) -> M:
    """Return the reply as the official client's own type; fail where it is not one to the letter."""
    if isinstance(reply, dict):
        return kind.model_validate(reply, strict=True)
    assert reply.status_code == 200, reply.text
    return kind.model_validate_json(reply.content, strict=True)
