"""Up is one thing, able to answer is another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from application import Api
from fakes import BagOfWords
from ragagent.api.app import build
from ragagent.errors import Unavailable
from ragagent.providers.embedders import Embedders

pytestmark = pytest.mark.anyio

WELL = {"database": "ok", "index": "ok", "indexer": "ok", "embedders": "ok", "redis": "off"}


async def probe(api: Api, path: str, checks: Mapping[str, Any] | Exception) -> httpx.Response:
    async def checked() -> Mapping[str, Any]:
        if isinstance(checks, Exception):
            raise checks
        return checks

    app = build(dataclasses.replace(api.services, checks=checked))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path)


async def test_a_process_that_answers_is_up_whatever_else_is_not(api: Api) -> None:
    reply = await probe(api, "/healthz", Unavailable("The database is gone."))
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


async def test_a_worker_on_its_own_parts_is_ready_and_names_each(api: Api) -> None:
    assert await api.json("GET", "/readyz") == {"status": "ready", "checks": WELL}


async def test_it_names_the_stores_that_no_configured_embedder_serves(api: Api) -> None:
    await api.store("old")
    api.services.catalog._embedders = Embedders(BagOfWords(3, "another"))
    checks = (await api.json("GET", "/readyz"))["checks"]
    assert checks == WELL | {"embedders": "none for 1 stores, 'old' first"}


@pytest.mark.parametrize("trouble", [{"redis": "down"}, {"indexer": "behind"}])
async def test_it_is_ready_without_what_it_can_do_without(api: Api, trouble: dict[str, str]) -> None:
    reply = await probe(api, "/readyz", WELL | trouble)
    assert (reply.status_code, reply.json()["checks"]) == (200, WELL | trouble)


@pytest.mark.parametrize("trouble", [{"database": "down"}, {"index": "missing"}])
async def test_it_is_not_ready_without_what_every_answer_needs(api: Api, trouble: dict[str, str]) -> None:
    reply = await probe(api, "/readyz", WELL | trouble)
    assert (reply.status_code, reply.json()) == (503, {"status": "unavailable", "checks": WELL | trouble})


async def test_a_check_that_fails_is_not_ready(api: Api) -> None:
    assert (await probe(api, "/readyz", Unavailable("The database is gone."))).status_code == 503


async def test_without_its_index_it_is_up_but_not_ready(api: Api) -> None:
    index = api.config.data.index
    index.rename(index.with_name("elsewhere"))
    try:
        reply = await api.http.get("/readyz")
        assert (await api.http.get("/healthz")).status_code == 200
    finally:
        index.with_name("elsewhere").rename(index)
    assert (reply.status_code, reply.json()["checks"]["index"]) == (503, "missing")
