"""The door as clients meet it, and what each way for a request to end has cost."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai
import pytest

from application import TEXTS, Api, running
from fakes import Scripted
from ragagent import telemetry
from ragagent.config import Server as Settings
from ragagent.edge.server import Server
from ragagent.errors import Upstream
from ragagent.providers.base import Delta
from ragagent.text import count_tokens
from ragagent.types import Caller, Prompt, Usage

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
QUESTION = "When did the Øresund Bridge open?"
TOKENS = 6000  # so slow that what comes back during a test is little
SLACK = 150
Limited = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    def limited(*, indexing: bool = False, **limits: int | str) -> AbstractAsyncContextManager[Api]:
        env = {f"RAGAGENT_{name.upper()}": str(value) for name, value in limits.items()}
        return running(tmp_path, indexing=indexing, **env)

    return limited


def asking(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "ragagent", "messages": [{"role": "user", "content": question}], **more}


async def spent(api: Api) -> int:
    """Return how many of the anonymous callers' TOKENS are gone."""
    grant = await api.services.limiter.admit(Caller(), 0)
    assert grant is not None
    (left,) = [found.remaining for found in grant.standings if found.policy.name == "tokens"]
    return TOKENS - left


async def requests(api: Api) -> int:
    """Return how many requests the anonymous callers have left after this one."""
    return int((await api.http.get("/v1/models")).headers["x-ratelimit-remaining-requests"])


# Requests


async def test_a_limited_caller_learns_how_it_stands_and_when_to_come_back(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        telemetry, "count", lambda row, amount=1, attributes=None: counted.append((row.name, attributes))
    )
    async with limited(limits__requests_per_minute=3) as api:
        for left in (2, 1, 0):
            reply = await api.http.get("/v1/models")
            assert reply.status_code == 200
            assert reply.headers["ratelimit-policy"] == '"requests";q=3;w=60'
            assert reply.headers["ratelimit"].startswith(f'"requests";r={left};t=')
            assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
        refused = await api.http.get("/v1/models")
        assert refused.status_code == 429
        assert refused.json()["error"] == {
            "message": refused.json()["error"]["message"],
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert "(policy 'requests': 3 requests per minute). Try again in" in refused.json()["error"]["message"]
        seconds, exactly = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
        assert 19 <= seconds <= 20
        assert seconds - 1 < exactly / 1000 <= seconds
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert refused.headers["ratelimit"].startswith('"requests";r=0;')
        assert refused.headers["x-request-id"]
        assert "x-should-retry" not in refused.headers
        of_limits = [(name, attributes) for name, attributes in counted if "limits" in name or "input" in name]
        assert of_limits == [("ragagent.limits.refused", {"ragagent.limits.policy": "requests"})]


async def test_probes_and_strangers_take_nothing(limited: Limited) -> None:
    async with limited(limits__requests_per_minute=1, auth__required="always") as api:
        key = {"authorization": f"Bearer {api.key()}"}
        for _ in range(3):
            assert (await api.http.get("/healthz")).status_code == 200
            assert (await api.http.get("/readyz")).status_code == 200
            stranger = await api.http.get("/v1/models")
            assert (stranger.status_code, "ratelimit" in stranger.headers) == (401, False)
        assert (await api.http.get("/v1/models", headers=key)).status_code == 200
        assert (await api.http.get("/v1/models", headers=key)).status_code == 429
        assert (await api.http.get("/v1/models", headers={"authorization": f"Bearer {api.key()}"})).status_code == 200


async def test_what_leads_nowhere_is_a_request_too(limited: Limited) -> None:
    async with limited(limits__requests_per_minute=2) as api:
        assert (await api.http.get("/v1/nowhere")).status_code == 404
        assert (await api.http.put("/v1/models")).status_code == 405
        assert (await api.http.get("/v1/models")).status_code == 429


async def test_an_error_says_as_well_how_the_caller_stands(limited: Limited) -> None:
    async with limited(limits__requests_per_minute=3) as api:
        for left, (method, path) in enumerate((("GET", "/v1/nothing"), ("GET", "/v1/files/none"), ("POST", PATH))):
            reply = await api.http.request(method, path)
            assert reply.status_code in (400, 404)
            assert reply.headers.get_list("x-ratelimit-remaining-requests") == [str(2 - left)]
        refused = await api.http.get("/v1/files/none")
        assert refused.status_code == 429
        assert refused.headers.get_list("x-ratelimit-remaining-requests") == ["0"]


async def test_the_body_of_who_is_refused_is_not_read(limited: Limited) -> None:
    async with limited(limits__requests_per_minute=1) as api:
        await api.http.get("/v1/models")
        read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"{}"

        assert (await api.http.post(PATH, content=body())).status_code == 429
        assert not read


async def test_who_is_not_limited_sees_nothing_of_it(api: Api) -> None:
    reply = await api.http.get("/v1/models")
    assert not [name for name in reply.headers if "ratelimit" in name]
    assert not api.config.data.limits.exists()


async def test_the_official_client_waits_and_gets_through(limited: Limited) -> None:
    async with limited(limits__requests_per_minute=240, limits__burst_seconds=0) as api:
        assert (await api.openai.models.list()).data
        with pytest.raises(openai.RateLimitError) as caught:
            await api.openai.models.list()
        assert caught.value.code == "rate_limit_exceeded"
        began = time.monotonic()
        assert (await api.openai.with_options(max_retries=1).models.list()).data
        assert 0.1 < time.monotonic() - began < 5


# Tokens


async def test_an_answer_costs_what_it_used_and_says_so(limited: Limited) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS) as api:
        await api.store(**TEXTS)
        reply = await api.http.post(PATH, json=asking())
        used = reply.json()["usage"]["total_tokens"]
        assert used > 50
        assert TOKENS - int(reply.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(used, abs=SLACK / 3)
        assert await spent(api) == pytest.approx(used, abs=SLACK)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_costs_what_an_answer_does(limited: Limited, stream: bool) -> None:
    limits = {"limits__tokens_per_minute": TOKENS, "limits__concurrent_answers": 1}
    async with limited(indexing=True, **limits) as api:
        await api.store(**TEXTS)
        with api.speaking(Scripted("In 2000 [1].", usage=Usage(1500, 700))) as app:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                body = {"model": "ragagent", "input": QUESTION, "stream": stream}
                for _ in range(2):
                    assert (await http.post("/v1/responses", json=body)).status_code == 200
                refused = await http.post("/v1/responses", json={**body, "max_output_tokens": 9999})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
        assert await spent(api) == pytest.approx(4400, abs=SLACK)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_no_model_has_made_costs_nothing(limited: Limited, stream: bool) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS, limits__requests_per_minute=100) as api:
        await api.store(**TEXTS)
        unknown = await api.http.post(PATH, json=asking("Who won the chess championship of 1894?", stream=stream))
        assert unknown.status_code == 200
        assert (await api.http.post(PATH, json=asking(n=5, stream=stream))).status_code == 400
        assert (await api.http.post(PATH, content=b"{")).status_code == 400
        assert await spent(api) == 0
        with api.speaking(Talking(Upstream("The endpoint is down."), words=0)) as app:
            assert (await say(app, asking(stream=stream))).status_code == 502
        assert await spent(api) == 0
        first = await api.http.post(PATH, json=asking())
        before = await spent(api)
        again = await api.http.post(PATH, json=asking(stream=stream))
        assert (first.headers["x-ragagent-cache"], again.headers["x-ragagent-cache"]) == ("miss", "l1")
        assert await spent(api) <= before


async def test_a_stream_costs_what_its_model_reports(limited: Limited) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS) as api:
        await api.store(**TEXTS)
        with api.speaking(Scripted("In 2000 [1].", usage=Usage(1500, 700))) as app:
            reply = await say(app, asking(stream=True))
        assert reply.text.endswith("data: [DONE]\n\n")
        # What the longest answer may cost was reserved when its headers went out.
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(TOKENS - 1024, abs=SLACK)
        assert await spent(api) == pytest.approx(2200, abs=SLACK)


class Talking:
    """A generator that says so many words, and then fails or thinks for ever."""

    model = identity = "talking"

    def __init__(self, failure: Exception | None = None, words: int = 1000) -> None:
        self.failure = failure
        self.words = words
        self.began = anyio.Event()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        self.began.set()
        for _ in range(self.words):
            yield Delta("word ")
        if self.failure is not None:
            raise self.failure
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        pass


TALKED = count_tokens(QUESTION) + sum(map(count_tokens, TEXTS.values())) + count_tokens("word " * 1000)


async def say(app: Any, body: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.post(PATH, json=body)


async def test_a_stream_that_breaks_off_costs_what_was_said(limited: Limited) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS) as api:
        await api.store(**TEXTS)
        with api.speaking(Talking(Upstream("The endpoint broke off."))) as app:
            assert "upstream_error" in (await say(app, asking(stream=True))).text
        assert await spent(api) == pytest.approx(TALKED, abs=SLACK)


@pytest.mark.parametrize(
    ("stream", "words", "expected"), [(True, 1000, TALKED), (True, 0, 1024), (False, 1000, 1024)], ids=str
)
async def test_who_hangs_up_pays_for_what_was_said_or_else_for_what_was_reserved(
    limited: Limited, stream: bool, words: int, expected: int
) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS) as api:
        await api.store(**TEXTS)
        generator = Talking(words=words)
        with api.speaking(generator) as app, socket.create_server(("127.0.0.1", 0)) as listener:
            server = Server(app, [listener.dup()], Settings(keep_alive_seconds=0.1, graceful_seconds=5))
            await server.startup()
            await server.accept()
            body = json.dumps(asking(stream=stream)).encode()
            head = f"POST {PATH} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            with anyio.fail_after(10):
                async with await anyio.connect_tcp("127.0.0.1", listener.getsockname()[1]) as client:
                    await client.send(head + body)
                    await generator.began.wait()
                    received = b""
                    while stream and received.count(b"word") < words - 10:  # the last are held until they are whole
                        received += await client.receive()
                await server.drain()
        await api.services.limiter.aclose()
        assert await spent(api) == pytest.approx(expected, abs=SLACK)


async def test_an_answer_that_may_be_longer_reserves_more(limited: Limited) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS, limits__requests_per_minute=100) as api:
        await api.store(**TEXTS)
        before = await requests(api)
        reply = await api.http.post(PATH, json=asking(stream=True, max_tokens=4000))
        assert reply.status_code == 200
        await api.services.limiter.admit(Caller(), 3000)
        refused = await api.http.post(PATH, json=asking(stream=True, max_tokens=4000))
        assert refused.status_code == 429
        assert 5 <= int(refused.headers["retry-after"]) <= 15
        assert await spent(api) == pytest.approx(3000, abs=3 * SLACK), "it gave back what it had taken"
        assert await requests(api) == before - 4, "... and the request: what is missing are the others"


async def test_what_can_never_be_is_refused_for_good(limited: Limited) -> None:
    async with limited(indexing=True, limits__tokens_per_minute=TOKENS) as api:
        await api.store(**TEXTS)
        for body in (asking(max_tokens=TOKENS), asking("word " * 6000)):
            refused = await api.http.post(PATH, json=body)
            assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
            assert "retry-after" not in refused.headers
            error = refused.json()["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "too large" in error["message"]
        assert await spent(api) == 0


async def test_embeddings_cost_their_texts(limited: Limited) -> None:
    async with limited(limits__tokens_per_minute=TOKENS) as api:
        model = api.services.embedders.default.model
        refused = await api.http.post("/v1/embeddings", json={"model": model, "input": "word " * 5000})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
        reply = await api.http.post("/v1/embeddings", json={"model": model, "input": ["word " * 400, "更多" * 100]})
        assert reply.status_code == 200
        used = reply.json()["usage"]["total_tokens"]
        assert used == 700
        assert await spent(api) == pytest.approx(used, abs=SLACK)


# Answers under way


async def test_so_many_answers_at_a_time_and_as_many_as_one_likes_in_a_row(limited: Limited) -> None:
    async with limited(indexing=True, limits__concurrent_answers=1) as api:
        await api.store(**TEXTS)
        for n in range(4):
            reply = await api.http.post(PATH, json=asking(f"{QUESTION} {n}", stream=bool(n % 2)))
            assert reply.status_code == 200
            assert reply.headers["ratelimit"] == '"answers";r=0'
        generator = Scripted("In 2000 [1].")
        generator.gate = anyio.Event()
        with api.speaking(generator) as app:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, app, asking(stream=True))
                await generator.asked.wait()
                refused = await say(app, asking())
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert (await api.http.get("/v1/models")).status_code == 200
                generator.gate.set()
            assert (await say(app, asking())).status_code == 200
