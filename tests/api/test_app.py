"""The application as a whole: the order of its rings, who may call from a browser, and what no route answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.routing import Route

from application import Api, running
from ragagent.api.app import build

pytestmark = pytest.mark.anyio

ORIGIN = "https://app.example"
# What the official client sends from a browser.
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,openai-beta,x-stainless-lang,x-stainless-os",
}


async def test_the_rings_stand_in_order(api: Api) -> None:
    order = [ring.cls.__name__ for ring in api.app.user_middleware]  # type: ignore[attr-defined]
    assert order == ["Observe", "SecurityHeaders", "Problems", "Authenticate", "Limit", "BodyLimit"]


async def test_an_unknown_path_is_refused_in_the_envelope(api: Api) -> None:
    error = await api.refusal(404, "GET", "/v1/nowhere")
    assert error["message"] == "There is no '/v1/nowhere' here."
    assert error["code"] == "not_found"


async def test_a_trailing_slash_leads_nowhere_else(api: Api) -> None:
    reply = await api.http.get("/v1/files/")
    assert reply.status_code == 404
    assert "location" not in reply.headers


async def test_what_reads_can_be_asked_for_by_head(api: Api) -> None:
    for route in api.app.routes:
        assert isinstance(route, Route)
        assert route.methods
        assert ("HEAD" in route.methods) == ("GET" in route.methods)
    assert (await api.http.head("/v1/models")).status_code == 200


async def test_the_lifespan_is_entered_and_left_once(api: Api) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        seen.append("in")
        yield
        seen.append("out")

    app = build(api.services, lifespan)
    async with app.router.lifespan_context(app):
        assert seen == ["in"]
    assert seen == ["in", "out"]


async def test_by_default_no_page_may_call(api: Api) -> None:
    preflight = await api.http.options("/v1/vector_stores", headers=PREFLIGHT)
    simple = await api.http.get("/v1/models", headers={"origin": ORIGIN})
    assert preflight.status_code == 405
    for reply in (preflight, simple):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Api]:
    env = {"RAGAGENT_AUTH__CORS_ORIGINS": ORIGIN, "RAGAGENT_AUTH__REQUIRED": "always"}
    async with running(tmp_path, indexing=False, **env) as api:
        yield api


async def test_a_configured_origin_passes_its_preflight_without_a_key(opened: Api) -> None:
    reply = await opened.http.options("/v1/vector_stores", headers=PREFLIGHT)
    assert reply.status_code == 200, reply.text
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    allowed = {name.strip() for name in reply.headers["access-control-allow-headers"].split(",")}
    assert set(PREFLIGHT["access-control-request-headers"].split(",")) <= allowed
    assert reply.headers["x-request-id"]


async def test_a_configured_origin_reads_answers_errors_and_the_headers_its_client_acts_on(opened: Api) -> None:
    page = {"origin": ORIGIN}
    good = await opened.http.get("/v1/models", headers={**page, "authorization": f"Bearer {opened.key()}"})
    refused = await opened.http.get("/v1/models", headers=page)
    assert (good.status_code, refused.status_code) == (200, 401)
    for reply in (good, refused):
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        exposed = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
        assert {"x-request-id", "retry-after", "x-should-retry", "openai-poll-after-ms"} <= exposed
        assert {"retry-after-ms", "ratelimit", "ratelimit-policy", "x-ratelimit-remaining-tokens"} <= exposed


async def test_another_origin_stays_outside(opened: Api) -> None:
    stranger = {**PREFLIGHT, "origin": "https://evil.example"}
    preflight = await opened.http.options("/v1/vector_stores", headers=stranger)
    simple = await opened.http.get("/v1/models", headers={"origin": "https://evil.example"})
    for reply in (preflight, simple):
        assert "access-control-allow-origin" not in reply.headers
