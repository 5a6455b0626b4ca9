"""The cache over HTTP: what one worker knows of it, and one tenant's purge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from application import TEXTS, Api, running
from ragagent.store import keys
from ragagent.store.database import Database

pytestmark = pytest.mark.anyio

QUESTION = "When did the Øresund Bridge open?"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    root: Path = tmp_path_factory.mktemp("cache")
    async with running(root, RAGAGENT_SEMANTIC__ENABLED="true") as opened:
        await opened.store("facts", **TEXTS)
        yield opened


@pytest.fixture(autouse=True)
async def empty(api: Api) -> None:
    await api.services.caches.tiered.purge()


async def ask(api: Api, text: str = QUESTION, **options: Any) -> tuple[str, dict[str, Any]]:
    body = {"model": "ragagent", "messages": [{"role": "user", "content": text}]}
    reply = await api.http.post("/v1/chat/completions", json=body, **options)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-ragagent-cache"], reply.json()


def key(api: Api, tenant: str, *stores: str) -> dict[str, str]:
    with closing(Database.open(api.config.data.database)) as database, database.write() as tx:
        pepper = keys.pepper(api.config.data.pepper)
        _, token = keys.add(tx, pepper, tenant=tenant, name="k", stores=list(stores) or None)
    return {"authorization": f"Bearer {token}"}


async def purge(api: Api, body: Any = None, **options: Any) -> Any:
    return await api.json("POST", "/v1/ragagent/cache/purge", json=body if body is not None else {}, **options)


async def test_it_tells_what_was_found_where(api: Api) -> None:
    before = await api.json("GET", "/v1/ragagent/cache")
    assert (await ask(api))[0] == "miss"
    assert (await ask(api))[0] == "l1"
    found = await api.json("GET", "/v1/ragagent/cache")
    hits = [told["lookups"].get("l1", {}).get("answer", {}).get("hit", 0) for told in (before, found)]
    assert hits[1] == hits[0] + 1
    assert found["object"] == "ragagent.cache"
    assert found["enabled"]
    assert 0 < found["hit_ratio"]["l1"] < 1
    assert found["hit_ratio"]["l2"] is found["redis"] is None
    assert found["local"]["entries"] >= 3
    assert found["flights"] == 0
    assert QUESTION not in str(found)


async def test_a_semantic_hit_says_what_it_was_the_answer_to(api: Api) -> None:
    _, first = await ask(api)
    tier, second = await ask(api, f"Could you please tell me: {QUESTION.lower()}")
    assert tier == "semantic"
    assert second["choices"] == first["choices"]
    told = second["ragagent"]
    assert (told["cache"], told["answered_question"]) == ("semantic", QUESTION)
    assert 0.8 <= told["similarity"] <= 1
    assert "similarity" not in first["ragagent"]
    found = await api.json("GET", "/v1/ragagent/cache")
    assert (found["semantic"]["state"], found["semantic"]["hits"]) == (
        "ok",
        found["lookups"]["semantic"]["answer"]["hit"],
    )
    assert (await api.json("GET", "/readyz"))["checks"]["semantic"] == "ok"


async def test_a_purge_takes_the_tenants_own_values_and_no_others(api: Api) -> None:
    await ask(api)
    theirs = key(api, "others")
    assert await purge(api, headers=theirs) == {
        "object": "ragagent.cache.purge",
        "scope": "tenant",
        "kind": None,
        "local": 0,
        "redis": 0,
        "complete": True,
    }
    assert (await ask(api))[0] == "l1"
    assert (await purge(api))["local"] == 2, "an answer and its retrieval; vectors are nobody's"
    assert (await ask(api))[0] == "miss"


async def test_a_purge_may_be_of_one_kind(api: Api) -> None:
    await ask(api)
    assert (await purge(api, {"kind": "retrieval"}))["local"] == 1
    assert (await ask(api))[0] == "l1"
    reply = await api.http.post("/v1/ragagent/cache/purge")
    assert reply.json()["local"] == 1, "without a body, all kinds"


@pytest.mark.parametrize(
    ("body", "param"), [({"kind": "embedding"}, "kind"), ({"kind": "x"}, "kind"), ({"scope": "store"}, "scope")]
)
async def test_what_cannot_be_purged_is_named(api: Api, body: dict[str, str], param: str) -> None:
    assert (await api.refusal(400, "POST", "/v1/ragagent/cache/purge", json=body))["param"] == param


async def test_nobody_purges_more_than_the_key_sees(api: Api) -> None:
    error = await api.refusal(403, "POST", "/v1/ragagent/cache/purge", json={"scope": "all"})
    assert "ragagent cache purge --all" in error["message"]
    bound = key(api, "default", "vs_1")
    error = await api.refusal(403, "POST", "/v1/ragagent/cache/purge", json={}, headers=bound)
    assert "bound to some stores" in error["message"]
