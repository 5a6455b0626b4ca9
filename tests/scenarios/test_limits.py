"""Rate limits over real workers: exact with Redis, bounded while it hangs, exact again when it answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

import servers
from redis_server import RedisServer, redis_server

WORKERS = 3
LIMIT = 20


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[servers.Running]:
    directory = tmp_path_factory.mktemp("limited")
    env = {"RAGAGENT_AUTH__REQUIRED": "always", "RAGAGENT_SERVER__WORKERS": str(WORKERS), "REDIS_URL": redis.url}
    with servers.server(directory, **env) as running:
        yield running


@pytest.fixture
def key(limited: servers.Running) -> str:
    return new_key(limited, "--requests-per-minute", str(LIMIT))


def new_key(running: servers.Running, *limits: str) -> str:
    """Make a key as the operator of the machine does; return its token."""
    command = [sys.executable, "-m", "ragagent.cli.main", "keys", "create", "limited", *limits, "--json"]
    env = servers.environment(running.data_dir, 1, {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    token: str = json.loads(done.stdout)["token"]
    return token


def ask(running: servers.Running, token: str) -> httpx.Response:
    """On a fresh connection, so that any worker may answer."""
    with running.http(headers={"authorization": f"Bearer {token}"}) as http:
        return http.get("/v1/models")


def statuses(running: servers.Running, token: str, count: int) -> Counter[int]:
    return Counter(ask(running, token).status_code for _ in range(count))


def came_back(began: float) -> int:
    """How many requests of a minute have come back since."""
    return int((time.monotonic() - began) * LIMIT / 60) + 1


@pytest.mark.redis
def test_all_workers_together_let_through_what_the_key_may(limited: servers.Running, key: str) -> None:
    began = time.monotonic()
    replies = [ask(limited, key) for _ in range(3 * LIMIT)]
    allowed = [reply for reply in replies if reply.status_code == 200]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(allowed) + len(refused) == len(replies)
    assert LIMIT <= len(allowed) <= LIMIT + came_back(began)
    assert [int(reply.headers["x-ratelimit-remaining-requests"]) for reply in allowed[:3]] == [19, 18, 17]
    for reply in refused:
        assert reply.headers["ratelimit-policy"] == f'"requests";q={LIMIT};w=60'
        assert reply.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert 0 < int(reply.headers["retry-after-ms"]) <= 1000 * int(reply.headers["retry-after"]) <= 3000
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    assert statuses(limited, new_key(limited), 5) == {200: 5}, "the others are not limited"


@pytest.mark.redis
def test_a_redis_that_hangs_and_heals_gives_nobody_more(limited: servers.Running, redis: RedisServer, key: str) -> None:
    began = time.monotonic()
    allowed = statuses(limited, key, LIMIT // 2)[200]
    redis.pause()
    try:
        allowed += statuses(limited, key, 2 * LIMIT)[200]
        # What the hanging server was asked may be counted twice: there, and here.
        assert allowed + 3 * WORKERS >= LIMIT
    finally:
        redis.resume()
    with limited.http() as http:
        servers.wait_until(lambda: http.get("/readyz").json()["checks"]["redis"] == "up", 10)
    allowed += statuses(limited, key, LIMIT)[200]
    assert LIMIT * 0.75 <= allowed <= LIMIT * 1.25 + came_back(began)


@pytest.mark.redis
def test_the_official_client_gets_through_by_itself(limited: servers.Running) -> None:
    client = limited.openai(new_key(limited, "--requests-per-minute", "60"), max_retries=3)
    for _ in range(60):
        client.models.list()
    began = time.monotonic()
    for _ in range(2):
        assert client.models.list().data
    assert 0.5 < time.monotonic() - began < 10
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).models.list()


def test_without_redis_the_workers_of_a_host_count_together(tmp_path: Path) -> None:
    with servers.server(tmp_path, RAGAGENT_LIMITS__REQUESTS_PER_MINUTE=str(LIMIT)) as running:
        began = time.monotonic()
        allowed = statuses(running, "any", LIMIT // 2)[200]
        old = {worker["pid"] for worker in running.workers()}
        running.control("reload")
        servers.wait_until(lambda: not old & {worker["pid"] for worker in running.workers()}, 30)
        allowed += statuses(running, "any", 2 * LIMIT)[200]
        assert LIMIT <= allowed <= LIMIT + came_back(began)
        with running.http() as http:
            assert http.get("/readyz").status_code == 200
