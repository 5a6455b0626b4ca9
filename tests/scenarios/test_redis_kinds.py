"""All that uses Redis, on each kind of it: cache, limits, sessions, erasing, purges. Nothing is refused or lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from application import TEXTS, running
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer
from redis_topologies import redis_cluster, redis_sentinel

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

QUESTION = "When did the Øresund Bridge open?"


def careful(redis: RedisServer) -> str:
    """Return the URL of a user who may do what the manual says, and nothing else."""
    manual = (Path(__file__).parents[2] / "conf" / "ragagent.toml").read_text()
    allowed = re.findall(
        r"[+~&][a-z:*|]+", manual[manual.index("What its user must be allowed") : manual.index("in a cluster also +")]
    )
    redis.command("ACL", "SETUSER", "careful", "reset", "resetchannels", "on", ">secret", *allowed)
    return f"redis://careful:secret@127.0.0.1:{redis.port}/1"


@pytest.fixture(params=["careful", "cluster", "sentinel"])
def url(redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "careful":
        yield careful(redis)
        return
    kind = redis_cluster if request.param == "cluster" else redis_sentinel
    with kind() as servers:
        yield servers.url


async def test_everything_works_on_every_kind(tmp_path: Path, url: str) -> None:
    async with running(
        tmp_path,
        REDIS_URL=url,
        RAGAGENT_REDIS__TIMEOUT_SECONDS="1",
        RAGAGENT_CACHE__LOCAL_BYTES="0",
        RAGAGENT_LIMITS__REQUESTS_PER_MINUTE="1000",
        RAGAGENT_LIMITS__CONCURRENT_ANSWERS="1000",
    ) as api:
        store = await api.store("facts", **TEXTS)
        body = {"model": "ragagent", "messages": [{"role": "user", "content": QUESTION}]}
        talk = {"x-ragagent-session": "rights"}
        for headers in (talk, talk, {}, {}):
            reply = await api.http.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.status_code == 200, reply.text
        assert reply.headers["x-ragagent-cache"] == "l2"
        gone = {"store": store, "external_ids": list(TEXTS)[:1]}
        await api.json("DELETE", "/v1/ragagent/documents", json=gone)
        await api.services.caches.eraser.step()
        await api.json("DELETE", "/v1/ragagent/sessions/rights")
        assert (await api.json("POST", "/v1/ragagent/cache/purge"))["complete"]
        told = api.services.caches.tiered.stats().remote
        assert told is not None
        assert (told.state, told.no_replies) == ("up", {})


async def test_what_the_manual_does_not_allow_is_refused(redis: RedisServer) -> None:
    async with Remote(careful(redis)) as remote:
        assert remote.database == 1
        assert await remote.set("rag:1:x", b"", 60) is None
        assert await remote.set("someone:else", b"", 60) is NoReply.REFUSED
