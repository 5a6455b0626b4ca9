"""With Redis, without, and while it dies: users notice nothing but the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import servers
from redis_server import NEEDED, RedisServer, find_redis_server, redis_server

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(find_redis_server() is None, reason=NEEDED),
]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def _prepared(running: servers.Running) -> str:
    store: str = httpx.post(f"{running.url}/v1/vector_stores", json={"name": "facts"}).json()["id"]
    running.upsert(store, a="The lighthouse keeper lives on the island.", b="The baker opens at six.")
    return store


def _search(running: servers.Running, store: str, query: str) -> httpx.Response:
    """On a fresh connection, so that any worker may answer."""
    return httpx.post(f"{running.url}/v1/vector_stores/{store}/search", json={"query": query}).raise_for_status()


def _redis_state(running: servers.Running) -> str:
    reply = httpx.get(f"{running.url}/readyz")
    assert reply.status_code == 200
    state: str = reply.json()["checks"]["redis"]
    return state


def test_what_one_worker_computed_another_finds_in_redis(tmp_path: Path, redis: RedisServer) -> None:
    with servers.server(tmp_path, REDIS_URL=redis.url, RAGAGENT_CACHE__LOCAL_BYTES="0") as running:
        store = _prepared(running)
        tiers = [_search(running, store, "who lives on the island").headers["x-ragagent-cache"] for _ in range(10)]
        assert tiers[0] == "miss"
        assert "l2" in tiers
        running.upsert(store, a="The lighthouse keeper moved to the mainland.")
        fresh = _search(running, store, "who lives on the island")
        assert fresh.headers["x-ragagent-cache"] == "miss"
        assert "mainland" in fresh.json()["data"][0]["content"][0]["text"]


def test_the_death_of_redis_fails_no_request(tmp_path: Path, redis: RedisServer) -> None:
    with servers.server(tmp_path, REDIS_URL=redis.url) as running:
        store = _prepared(running)
        servers.wait_until(lambda: _redis_state(running) == "up", 10)
        for fault in (redis.pause, redis.kill):
            fault()
            for n in range(30):
                assert _search(running, store, f"baker question {n} {fault.__name__}").json()["data"]
            servers.wait_until(lambda: _redis_state(running) == "degraded", 10)
            redis.kill()
            redis.start()
            servers.wait_until(lambda: _redis_state(running) == "up", 10)


def test_it_starts_and_answers_without_the_redis_that_it_was_promised(tmp_path: Path) -> None:
    with servers.server(tmp_path, REDIS_URL=f"redis://127.0.0.1:{servers.free_port()}/0") as running:
        store = _prepared(running)
        assert _search(running, store, "baker").json()["data"]
        assert _redis_state(running) == "degraded"
