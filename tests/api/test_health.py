"""Health needs no key, and tells a process that is up from one that can answer."""

from __future__ import annotations

import pytest

from application import Api

pytestmark = pytest.mark.anyio


async def test_a_process_that_is_up_says_so(api: Api) -> None:
    assert await api.json("GET", "/healthz") == {"status": "ok"}


async def test_readiness_names_every_part(api: Api) -> None:
    ready = await api.json("GET", "/readyz")
    assert ready["status"] == "ready"
    assert ready["checks"] == {"database": "ok", "index": "ok", "indexer": "ok", "redis": "off"}


async def test_without_its_index_it_is_up_but_not_ready(api: Api) -> None:
    index = api.config.data.index
    index.rename(index.with_name("elsewhere"))
    try:
        reply = await api.http.get("/readyz")
    finally:
        index.with_name("elsewhere").rename(index)
    assert reply.status_code == 503
    assert reply.json()["checks"]["index"] == "missing"
    assert (await api.http.get("/healthz")).status_code == 200
