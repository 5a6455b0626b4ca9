"""Fixtures that every floor may use. Real parts only: see tests/scenarios/ for whole servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from redis_server import NEEDED, RedisServer, find_redis_server, redis_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _redis_or_skip(request: pytest.FixtureRequest) -> None:
    """For tests that start servers of their own."""
    if request.node.get_closest_marker("redis") is not None and find_redis_server() is None:
        pytest.skip(NEEDED)


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    if find_redis_server() is None:
        pytest.skip(NEEDED)
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> Iterator[RedisServer]:
    """A running, empty server, one per module. A test may pause, kill or misconfigure it."""
    with contextlib.closing(shared_redis.admin()) as admin:
        admin.flushall()
    yield shared_redis
    shared_redis.resume()
    if shared_redis.process is None or shared_redis.process.poll() is not None:
        shared_redis.start()
    with contextlib.closing(shared_redis.admin()) as admin:
        admin.config_set("maxmemory", 0)
