from __future__ import annotations

import contextlib

import pytest

from ragagent.cache import keys
from ragagent.cli import census
from ragagent.config import Redis
from ragagent.errors import Invalid, Unavailable
from redis_server import RedisServer


@pytest.fixture
def filled(redis: RedisServer) -> Redis:
    """A Redis with answers of two tenants, vectors, and something of another part of ours."""
    with contextlib.closing(redis.admin()) as admin:
        for tenant in ("one", "two"):
            for number in range(60):
                key = keys.answer(tenant, [], "p", "e", "g", [str(number)], {})
                admin.set(key.rendered, b"x" * 1000, px=60_000 + number)
        for number in range(5):
            admin.set(keys.embedding("m", str(number)).rendered, b"x" * 100)
        admin.set("rag:s:{one}:m", b"x")
        admin.set("foreign", b"x")
    return Redis(url=redis.url)


def test_what_is_there_is_counted_by_kind_and_weighed(filled: Redis) -> None:
    found = census.census(filled, 10_000)
    assert found.complete
    kinds = {kind.name: kind for kind in found.kinds}
    assert {name: (kind.count, len(kind.tenants)) for name, kind in kinds.items()} == {
        "answer": (120, 2),
        "embedding": (5, 1),
        "rag:s": (1, 1),
    }
    answers = kinds["answer"]
    assert len(answers.sizes) == census.SAMPLE
    assert 120 * 1000 < answers.bytes < 120 * 2000
    assert 50 < answers.lives[0] <= answers.lives[-1] <= 60.06
    assert (answers.endless, kinds["embedding"].endless) == (0, 5)
    assert found.kinds[0] is answers, "the heaviest first"


def test_the_count_is_bounded(filled: Redis) -> None:
    assert not census.census(filled, 1).complete


def test_a_purge_keeps_what_is_not_under_its_prefix(filled: Redis, redis: RedisServer) -> None:
    assert census.purge(filled, keys.tenant_prefix("one")) == (60, True)
    assert census.purge(filled, keys.PREFIX) == (65, True)
    with contextlib.closing(redis.admin()) as admin:
        assert set(admin.keys()) == {b"rag:s:{one}:m", b"foreign"}


def test_without_a_redis_it_says_what_is_missing() -> None:
    with pytest.raises(Invalid, match="No Redis is configured"):
        census.census(Redis(), 1)
    with pytest.raises(Unavailable, match="does not answer"):
        census.purge(Redis(url="redis://:hunter2@127.0.0.1:1"), keys.PREFIX)
