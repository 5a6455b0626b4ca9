"""Redis in every state that operators have seen it in: users notice nothing but the time, and /readyz says what is.

One server for all of it, of two workers without a local cache, so that every look-up goes to Redis, through a proxy
that can be slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import servers
from caching.slow_proxy import SlowProxy, slow_proxy
from otlp_collector import Collector, otlp_collector
from ragagent import names
from redis_server import NEEDED, RedisServer, find_redis_server, load_slowly, redis_server, replica_of_nobody

pytestmark = pytest.mark.redis

ISLAND = "The lighthouse keeper lives on the island."
CONNECTIONS = 16 + 4 + 1  # of a worker: its slots, what is just being replaced, and one of its own for messages


@dataclass
class Deployed:
    running: servers.Running
    redis: RedisServer
    proxy: SlowProxy
    collector: Collector
    store: str = ""
    born: str = ""  # what /readyz said of Redis, which was not there at the start

    def __post_init__(self) -> None:
        self._questions = itertools.count()
        self.store = self.running.new_store("facts")
        self.running.upsert(self.store, a=ISLAND, b="The baker opens at six.")

    def search(self, query: str) -> httpx.Response:
        """On a fresh connection, so that any worker may answer."""
        with self.running.http() as client:
            return client.post(f"/v1/vector_stores/{self.store}/search", json={"query": query}).raise_for_status()

    def answers(self) -> bool:
        """Ask what nobody asked before, and again; the answers must be right, wherever they come from."""
        query = f"who lives on the island {next(self._questions)}"
        for _ in range(2):
            assert self.search(query).json()["data"][0]["content"][0]["text"] == ISLAND
        return True

    def states(self) -> set[str]:
        """What the workers say of Redis; each is ready all the while."""
        found = set()
        for _ in range(6):
            with self.running.http() as client:
                found.add(client.get("/readyz").raise_for_status().json()["checks"]["redis"])
        return found

    def until(self, state: str) -> None:
        servers.wait_until(lambda: self.answers() and self.states() == {state}, 20)


@pytest.fixture(scope="module")
def _deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    if find_redis_server() is None:
        pytest.skip(NEEDED)
    with (
        otlp_collector() as collector,
        redis_server("--rdbcompression", "no", start=False) as redis,
        slow_proxy(redis.port) as proxy,
        servers.server(
            tmp_path_factory.mktemp("redis"),
            REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
            RAGAGENT_CACHE__LOCAL_BYTES="0",
            RAGAGENT_TELEMETRY__METRICS_SECONDS="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        ) as running,
    ):
        deployed = Deployed(running, redis, proxy, collector)
        assert deployed.answers()
        (deployed.born,) = deployed.states()
        redis.start()
        yield deployed


@pytest.fixture
def deployed(_deployed: Deployed) -> Deployed:
    _deployed.until("up")
    return _deployed


def test_it_starts_and_answers_without_the_redis_that_it_was_promised_and_finds_it_later(deployed: Deployed) -> None:
    assert deployed.born == "degraded"


def test_what_one_worker_computed_another_finds_in_redis(deployed: Deployed) -> None:
    tiers = [deployed.search("who lives on the island").headers["x-ragagent-cache"] for _ in range(10)]
    assert tiers[0] == "miss"
    assert "l2" in tiers
    deployed.running.upsert(deployed.store, b="The baker opens at seven.")
    assert deployed.search("who lives on the island").headers["x-ragagent-cache"] == "miss"


# --- Faults ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(deployed: Deployed) -> Iterator[None]:
    deployed.redis.pause()
    try:
        yield
    finally:
        deployed.redis.resume()


@contextlib.contextmanager
def killed(deployed: Deployed) -> Iterator[None]:
    deployed.redis.kill()
    try:
        yield
    finally:
        deployed.redis.start()


@contextlib.contextmanager
def wrong_password(deployed: Deployed) -> Iterator[None]:
    with contextlib.closing(deployed.redis.admin()) as admin:
        admin.config_set("requirepass", "changed")
        admin.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            admin.config_set("requirepass", "")


@contextlib.contextmanager
def full(deployed: Deployed) -> Iterator[None]:
    with contextlib.closing(deployed.redis.admin()) as admin:
        admin.config_set("maxmemory", 1)
        try:
            yield
        finally:
            admin.config_set("maxmemory", 0)


def read_only(deployed: Deployed) -> AbstractContextManager[None]:
    return replica_of_nobody(deployed.redis)


@contextlib.contextmanager
def loading(deployed: Deployed) -> Iterator[None]:
    loader = threading.Thread(target=load_slowly, args=(deployed.redis,))
    loader.start()
    try:
        yield
    finally:
        loader.join()


@contextlib.contextmanager
def slow(deployed: Deployed) -> Iterator[None]:
    deployed.proxy.delay_seconds, deployed.proxy.byte_seconds = 0.08, 1.0
    try:
        yield
    finally:
        deployed.proxy.delay_seconds = deployed.proxy.byte_seconds = 0.0


Fault = Callable[[Deployed], AbstractContextManager[None]]


@pytest.mark.parametrize("fault", [stopped, killed, wrong_password, full, read_only, loading, slow])
def test_a_redis_that_fails_fails_no_request_and_is_used_again(deployed: Deployed, fault: Fault) -> None:
    with fault(deployed):
        deployed.until("degraded")
    deployed.until("up")


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"])
def test_what_redis_forgets_or_cuts_is_made_again(deployed: Deployed, command: str) -> None:
    deployed.redis.command(*command.split())
    assert deployed.answers()
    deployed.until("up")


def test_more_requests_than_connections_blame_nobody(deployed: Deployed) -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> Any:
        body = {"query": f"who lives on the island, they asked all at once {number}"}
        reply = await client.post(f"/v1/vector_stores/{deployed.store}/search", json=body, timeout=60)
        return reply.raise_for_status().json()["data"][0]["content"][0]["text"]

    async def storm() -> list[Any]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=deployed.running.url, limits=limits, verify=False) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(200)))

    assert asyncio.run(storm()) == [ISLAND] * 200
    assert deployed.states() == {"up"}


# --- What an operator sees -------------------------------------------------------------------------------------------


def test_after_a_reload_only_the_new_workers_are_connected(deployed: Deployed) -> None:
    def connections() -> dict[int, str]:
        with contextlib.closing(deployed.redis.admin()) as admin:
            return {int(client["id"]): client["name"] for client in admin.client_list() if client["name"]}

    before = connections()
    workers = {"ragagent-worker-0", "ragagent-worker-1"}
    assert workers <= set(before.values())
    deployed.running.process.send_signal(signal.SIGHUP)
    servers.wait_until(lambda: deployed.answers() and connections() and not before.keys() & connections().keys(), 30)
    deployed.until("up")
    after = list(connections().values())
    assert workers <= set(after)
    assert all(after.count(name) <= CONNECTIONS for name in workers)


def test_telemetry_tells_of_the_connection(deployed: Deployed) -> None:
    gauges = (names.REDIS_CONNECTIONS, names.REDIS_CONNECTIONS_MAX, names.REDIS_PENDING, names.REDIS_BREAKER_OPEN)
    counts = (names.REDIS_CONNECTS, names.REDIS_DURATION)
    for metric in (*gauges, *counts, names.DEPENDENCY_UP):
        deployed.collector.wait_for(metric.name, 10)
    slots = {point.resource[names.WORKER_SLOT] for point in deployed.collector.of(names.REDIS_CONNECTIONS.name)}
    assert slots == {0, 1}
    most = deployed.collector.of(names.REDIS_CONNECTIONS_MAX.name, {names.DB_POOL: "redis"})
    assert {point.value for point in most} == {16}
    assert deployed.collector.undocumented() == set()
