"""Whatever is written and asked, in whatever order: no answer tells whether there is a cache.

The same applications four times over one data directory: two with their caches and a Redis between them, one with L1
alone, one with none. The indexer steps only where the test says.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from application import running
from fakes import InProcessParser
from ragagent import config_file, worker
from ragagent.api.app import build
from ragagent.api.services import Services
from ragagent.engine import access
from ragagent.engine.indexing.indexer import Indexer
from ragagent.engine.publishing.publisher import Publisher
from ragagent.store import editions, keys, stores
from ragagent.store.database import Database
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

WORDS = ("lighthouse", "bakery", "harbour")
IDS = ("a", "b", "c")
ENV = {"RAGAGENT_INGEST__WAIT_SECONDS": "0", "RAGAGENT_RETRIEVAL__MIN_EVIDENCE": "0.1"}


@dataclass(frozen=True)
class Asked:
    path: str
    body: dict[str, Any]
    content: Callable[[httpx.Response], Any]  # what of a reply may not differ
    token: str | None


class House:
    """Four applications, one database, one indexer, and what can happen to them."""

    def __init__(self, chance: random.Random, services: list[Services], clients: list[httpx.AsyncClient]) -> None:
        self.chance = chance
        self.services = services
        self.clients = clients
        self.database: Database = services[0].queue._database
        self.publisher = Publisher(self.database, services[0].config.data.index, services[0].config.ingest)
        self.indexer = Indexer(self.database, self.publisher, InProcessParser(), services[0].embedders)
        self.stores: list[str] = []
        self.tiers: set[str] = set()
        self.asked: deque[Asked] = deque(maxlen=4)
        with self.database.write() as tx:
            pepper = keys.pepper(services[0].config.data.pepper)
            row, token = keys.add(tx, pepper, tenant="default", name="bound", stores=["none"])
        self.key_id = row.id
        self.tokens = (None, token)

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Through any of them: a worker's write is every worker's."""
        return await self.chance.choice(self.clients).request(method, path, **options)

    async def must(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        reply = await self.send(method, path, **options)
        assert reply.status_code in (200, 202), reply.text
        found: dict[str, Any] = reply.json()
        return found

    # What is written

    async def new_store(self) -> None:
        self.stores.append((await self.must("POST", "/v1/vector_stores", json={"name": "facts"}))["id"])

    async def drop_store(self) -> None:
        if len(self.stores) > 1:
            await self.must("DELETE", f"/v1/vector_stores/{self.stores.pop(0)}")
        await self.new_store()

    async def upsert(self) -> None:
        word, other = self.chance.sample(WORDS, 2)
        text = f"The {word} opened in {self.chance.randrange(1800, 2000)}. It stands beside the {other}."
        document = {"external_id": self.chance.choice(IDS), "text": text, "attributes": {"level": self.level()}}
        await self.must("POST", "/v1/ragagent/documents", json={"store": self.store(), "documents": [document]})

    async def remove(self) -> None:
        body = {"store": self.store(), "external_ids": [self.chance.choice(IDS)]}
        await self.must("DELETE", "/v1/ragagent/documents", json=body)

    async def attach(self) -> None:
        text = f"The {self.chance.choice(WORDS)} is {self.chance.randrange(10, 99)} metres high."
        form = {"files": {"file": ("heights.txt", text.encode())}, "data": {"purpose": "assistants"}}
        file = (await self.must("POST", "/v1/files", **form))["id"]
        await self.must("POST", f"/v1/vector_stores/{self.store()}/files", json={"file_id": file})

    async def detach(self) -> None:
        if file := self.any_file():
            await self.must("DELETE", f"/v1/vector_stores/{file[0]}/files/{file[1]}")

    async def delete_file(self) -> None:
        if file := self.any_file():
            await self.must("DELETE", f"/v1/files/{file[1]}")

    async def set_attributes(self) -> None:
        if file := self.any_file():
            path = f"/v1/vector_stores/{file[0]}/files/{file[1]}"
            await self.must("POST", path, json={"attributes": {"level": self.level()}})

    # What else happens

    async def index(self) -> None:
        await self.indexer.step()

    async def settle(self) -> None:
        for _ in range(200):
            if not await self.indexer.step():
                return
        raise AssertionError("the indexer never comes to rest")

    async def rebind(self) -> None:
        bound = self.chance.sample(self.stores, self.chance.randint(1, len(self.stores)))
        with self.database.write() as tx:
            tx.execute("UPDATE api_keys SET stores = ? WHERE id = ?", (json.dumps(bound), self.key_id))

    async def rebuild(self) -> None:
        with self.database.write() as tx:
            row = stores.get(tx, self.store())
            if row is not None and editions.find(tx, row.id, "rebuild") is None:
                editions.rebuild(tx, row)

    async def purge(self) -> None:
        await self.chance.choice(self.services).caches.eraser.purge()

    # What is asked

    async def search(self) -> None:
        body = {"query": self.question(), "filters": self.filter(), "max_num_results": 3}
        await self.ask(Asked(f"/v1/vector_stores/{self.store()}/search", body, _found, self.token()))

    async def chat(self) -> None:
        ours = {"stores": self.chance.choice([None, [self.store()]]), "filters": self.filter()}
        body = {
            "model": "ragagent",
            "messages": [{"role": "user", "content": self.question()}],
            "ragagent": {name: value for name, value in ours.items() if value is not None},
            "stream": self.chance.random() < 0.3,
        }
        await self.ask(Asked("/v1/chat/completions", body, _streamed if body["stream"] else _said, self.token()))

    async def again(self) -> None:
        """What was asked before, of what has changed since."""
        for asked in list(self.asked):
            await self.ask(asked)

    async def ask(self, asked: Asked) -> None:
        """Ask all of them, those with caches twice, and hold that they say the same."""
        if asked not in self.asked:
            self.asked.append(asked)
        headers = {"authorization": f"Bearer {asked.token}"} if asked.token else {}
        said = []
        for client in [*self.clients, *self.clients[:3]]:
            reply = await client.post(asked.path, json=asked.body, headers=headers)
            if reply.status_code == 200:
                self.tiers.add(reply.headers["x-ragagent-cache"])
                said.append(asked.content(reply))
            else:
                said.append(reply.json()["error"])
        assert all(one == said[0] for one in said), said

    # Chance

    def store(self) -> str:
        return self.chance.choice(self.stores)

    def token(self) -> str | None:
        return self.chance.choice(self.tokens)

    def level(self) -> int:
        return self.chance.randint(1, 2)

    def question(self) -> str:
        return f"What of the {self.chance.choice(WORDS)}?"

    def filter(self) -> dict[str, Any] | None:
        return self.chance.choice([None, {"type": "eq", "key": "level", "value": self.level()}])

    def any_file(self) -> tuple[str, str] | None:
        with self.database.read() as tx:
            rows = tx.execute(
                "SELECT store_id, file_id FROM documents WHERE dead_seq IS NULL AND store_id IN"
                f" ({', '.join('?' * len(self.stores))}) ORDER BY id",
                self.stores,
            ).fetchall()
        return tuple(self.chance.choice(rows)) if rows else None


def _found(reply: httpx.Response) -> Any:
    return reply.json()["data"]


def _said(reply: httpx.Response) -> Any:
    body = reply.json()
    return body["choices"], body["usage"], body["ragagent"]["evidence"]


def _streamed(reply: httpx.Response) -> Any:
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    return text, deltas[-1].get("annotations")


WEIGHTS: Mapping[Callable[[House], Awaitable[None]], int] = {
    House.upsert: 8,
    House.remove: 3,
    House.attach: 2,
    House.detach: 1,
    House.delete_file: 2,
    House.set_attributes: 4,
    House.drop_store: 1,
    House.index: 10,
    House.settle: 4,
    House.rebind: 2,
    House.rebuild: 1,
    House.purge: 1,
    House.search: 3,
    House.chat: 4,
    House.again: 20,
}


@asynccontextmanager
async def house(root: Path, redis_url: str, chance: random.Random) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(root, indexing=False, REDIS_URL=redis_url, **ENV))
        services, clients = [first.services], [first.http]
        for env in ({"REDIS_URL": redis_url}, {}, {"RAGAGENT_CACHE__ENABLED": "false"}):
            settings = config_file.load(environ={"RAGAGENT_DATA__DIR": str(root / "data"), **ENV, **env})
            services.append((await worker._open(settings, len(services), stack))[0])
            transport = httpx.ASGITransport(build(services[-1]))
            client = httpx.AsyncClient(transport=transport, base_url="http://test")
            clients.append(await stack.enter_async_context(client))
        made = House(chance, services, clients)
        stack.push_async_callback(made.publisher.close)
        await made.new_store()
        await made.new_store()
        yield made


@pytest.mark.parametrize(
    ("seed", "steps"),
    [(1, 80), (2, 80), *[pytest.param(seed, 2000, marks=[pytest.mark.soak]) for seed in range(3, 9)]],
)
async def test_no_order_of_events_shows_a_cache(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int
) -> None:
    monkeypatch.setattr(access, "REMEMBER_SECONDS", 0.0)
    chance = random.Random(seed)
    async with house(tmp_path, redis.url, chance) as made:
        for step in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
            await step(made)
        assert made.tiers >= {"l1", "l2", "miss", "bypass"}
