"""Nothing under /v1 is reached without a caller, and little else is there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from application import Api, running
from ragagent.api.auth import Authenticate

pytestmark = pytest.mark.anyio

OPEN = {"/healthz", "/readyz"}


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, indexing=False, RAGAGENT_AUTH__REQUIRED="always") as api:
        yield api


def endpoints(api: Api) -> list[tuple[str, str]]:
    found = []
    for route in api.app.routes:
        assert isinstance(route, Route), f"{route} is none of those that this test can judge"
        found += [(method, re.sub(r"{[^}]*}", "x", route.path)) for method in sorted(route.methods or ())]
    return found


async def test_no_v1_route_is_reached_without_a_caller(locked: Api) -> None:
    under_v1 = [(method, path) for method, path in endpoints(locked) if path not in OPEN]
    assert len(under_v1) > 25
    for method, path in under_v1:
        assert path.startswith("/v1/"), path
        reply = await locked.http.request(method, path)
        assert reply.status_code == 401, (method, path)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["x-should-retry"] == "false"


async def test_with_a_key_every_v1_route_is_reached(locked: Api) -> None:
    header = {"authorization": f"Bearer {locked.key()}"}
    for method, path in endpoints(locked):
        assert (await locked.http.request(method, path, headers=header)).status_code != 401, (method, path)


async def test_a_stranger_does_not_learn_which_paths_there_are(locked: Api) -> None:
    assert (await locked.http.get("/v1/nowhere")).status_code == 401
    assert (await locked.http.get("/v1")).status_code == 401


async def test_the_body_of_a_stranger_is_not_read(locked: Api) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{}"

    assert (await locked.http.post("/v1/vector_stores", content=body())).status_code == 401
    assert not read


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_a_probe_needs_no_key(locked: Api, path: str) -> None:
    assert (await locked.http.get(path)).status_code == 200


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
async def test_the_scheme_is_read_as_http_has_it(locked: Api, form: str) -> None:
    header = form.format(locked.key()).encode()
    assert (await locked.http.get("/v1/models", headers=[(b"authorization", header)])).status_code == 200


@pytest.mark.parametrize("form", ["Basic {}", "{}", "Bearer", "Bearer ", "Bearer\t{}", "Token {}", ""])
async def test_any_other_form_is_none(locked: Api, form: str) -> None:
    header = form.format(locked.key()).encode()
    assert (await locked.http.get("/v1/models", headers=[(b"authorization", header)])).status_code == 401


async def test_the_route_finds_its_caller_in_the_request(locked: Api) -> None:
    async def who(request: Request) -> Response:
        return JSONResponse([request.state.caller.tenant, request.state.caller.key_id])

    locked.app.router.routes.append(Route("/v1/who", who))
    token = locked.key()
    reply = await locked.http.get("/v1/who", headers={"authorization": f"Bearer {token}"})
    assert reply.json() == ["default", token.removeprefix("rag_").partition("_")[0]]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass_untouched(locked: Api, kind: str) -> None:
    passed: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await Authenticate(inner, locked.services.access)({"type": kind, "path": "/v1/x"}, receive, send)
    assert passed == [{"type": kind, "path": "/v1/x"}]
