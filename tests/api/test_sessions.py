"""`x-ragagent-session`: what was said is remembered, once, and by its own session alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from application import TEXTS, Api, running
from fakes import Scripted
from ragagent import config_file, worker
from ragagent.errors import ConfigError, StorageFull, Upstream
from ragagent.types import Message, Prompt

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, RAGAGENT_SESSION__WAIT_SECONDS="0.2", RAGAGENT_SESSION__TURN_BYTES="2000") as opened:
        await opened.store("facts", **TEXTS)
        yield opened


def body(text: str, *, stream: bool = False, before: list[dict[str, str]] | None = None) -> dict[str, Any]:
    messages = [*(before or []), {"role": "user", "content": text}]
    return {"model": "ragagent", "messages": messages, "stream": stream}


class Talker:
    """A client that has one session, with an application whose model says what it is told to."""

    def __init__(self, http: httpx.AsyncClient, generator: Scripted) -> None:
        self.http = http
        self.generator = generator

    async def ask(self, text: str, *, session: str = "talk", key: str | None = None, **fields: Any) -> httpx.Response:
        headers = {"x-ragagent-session": session} | ({"idempotency-key": key} if key else {})
        return await self.http.post(PATH, json=body(text, **fields), headers=headers)

    def told(self, prompt: Prompt | None = None) -> list[tuple[str, str]]:
        """Return what the model was told last, without the rules and the sources."""
        messages = (prompt or self.generator.prompts[-1]).messages
        return [(m.role, m.content.rpartition("Question: ")[2]) for m in messages[1:]]


@pytest.fixture
async def talker(api: Api) -> AsyncIterator[Talker]:
    generator = Scripted("Coffee is native to Ethiopia [1].")
    with api.speaking(generator) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield Talker(http, generator)


ANSWER = "Coffee is native to Ethiopia [1]."
COFFEE = "Where are coffee plants native to?"


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_the_model_is_told_what_was_said_before(talker: Talker) -> None:
    first = await talker.ask(COFFEE)
    assert first.headers["x-ragagent-session"] == "talk"
    assert first.headers["x-ragagent-session-state"] == "ok"
    assert first.json()["ragagent"]["session"] == {
        "id": "talk",
        "turn": first.headers["x-ragagent-turn"],
        "state": "ok",
    }
    second = await talker.ask("And coffee plants again?")
    assert second.headers["x-ragagent-turn"] != first.headers["x-ragagent-turn"]
    assert talker.told() == [("user", COFFEE), ("assistant", ANSWER), ("user", "And coffee plants again?")]
    await talker.ask(COFFEE, session="another")
    assert talker.told() == [("user", COFFEE)]


async def test_without_the_header_nothing_is_kept(talker: Talker, api: Api) -> None:
    reply = await talker.http.post(PATH, json=body(COFFEE), headers={"idempotency-key": "k"})
    assert not [name for name in reply.headers if name.startswith("x-ragagent-session") or name == "x-ragagent-turn"]
    assert "session" not in reply.json()["ragagent"]
    with api.services.conversations._database.read() as tx:
        assert tx.execute("SELECT count(*) FROM turns").fetchone()[0] == 0


async def test_a_stream_is_kept_before_its_client_hears_of_the_end(talker: Talker, api: Api) -> None:
    reply = await talker.ask(COFFEE, stream=True)
    turn = reply.headers["x-ragagent-turn"]
    assert reply.text.endswith("data: [DONE]\n\n")
    assert events(reply)[-1]["ragagent"]["session"] == {"id": "talk", "turn": turn, "state": "ok"}
    await talker.ask("And coffee plants again?", stream=True)
    assert talker.told()[:2] == [("user", COFFEE), ("assistant", ANSWER)]


async def test_instructions_are_for_their_own_request(talker: Talker) -> None:
    await talker.ask(COFFEE, before=[{"role": "system", "content": "Rhyme."}])
    assert "Rhyme." in talker.generator.prompts[-1].messages[0].content
    await talker.ask("And coffee plants again?", before=[{"role": "system", "content": "Sing."}])
    rules = talker.generator.prompts[-1].messages[0].content
    assert "Sing." in rules
    assert "Rhyme." not in rules


async def test_a_client_that_repeats_the_talk_is_told_so(talker: Talker) -> None:
    past = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    await talker.ask(COFFEE, before=past)  # A session may begin with what was said elsewhere.
    reply = await talker.ask("And?", before=past)
    assert reply.status_code == 400
    assert "send only what is new" in reply.json()["error"]["message"]
    await talker.ask("And coffee plants again?")
    assert [text for _, text in talker.told()] == ["Hello?", "Hello.", COFFEE, ANSWER, "And coffee plants again?"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_gets_the_same_answer_and_adds_no_turn(talker: Talker, stream: bool) -> None:
    first = await talker.ask(COFFEE, key="k-1", stream=stream)
    again = await talker.ask(COFFEE, key="k-1", stream=stream)
    assert len(talker.generator.prompts) == 1
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-ragagent-turn"] == first.headers["x-ragagent-turn"]
    if stream:
        texts = ["".join(e["choices"][0]["delta"].get("content", "") for e in events(r)) for r in (first, again)]
        assert texts == [ANSWER, ANSWER]
        assert events(again)[-1]["choices"] == events(first)[-1]["choices"]
        assert again.text.endswith("data: [DONE]\n\n")
    else:
        same = ("id", "created", "choices", "usage")
        assert [again.json()[name] for name in same] == [first.json()[name] for name in same]
    await talker.ask("And coffee plants again?")
    assert len(talker.told()) == 3


async def test_a_key_that_was_used_for_something_else_is_named(talker: Talker) -> None:
    await talker.ask(COFFEE, key="k-1")
    reply = await talker.ask("Something else about coffee plants?", key="k-1")
    assert reply.status_code == 422
    assert reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["code"] == "idempotency_key_reused"
    assert "'k-1'" in reply.json()["error"]["message"]


async def test_a_second_turn_at_once_waits_and_then_is_told_to_come_back(talker: Talker) -> None:
    talker.generator.gate = anyio.Event()
    slow = asyncio.create_task(talker.ask(COFFEE))
    await talker.generator.asked.wait()
    busy = await talker.ask(COFFEE)
    assert busy.status_code == 409
    assert busy.json()["error"]["code"] == "session_busy"
    assert busy.headers["retry-after"] == "1"
    assert "x-should-retry" not in busy.headers
    talker.generator.gate.set()
    assert (await slow).status_code == 200
    assert (await talker.ask(COFFEE)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_failed_leaves_no_turn_and_a_free_session(talker: Talker, stream: bool) -> None:
    talker.generator.failure = Upstream("The model endpoint is gone.")
    failed = await talker.ask(COFFEE, key="k-1", stream=stream)
    assert failed.status_code == 502 or "upstream_error" in failed.text
    talker.generator.failure = None
    retried = await talker.ask(COFFEE, key="k-1", stream=stream)
    assert "idempotent-replayed" not in retried.headers
    assert talker.told() == [("user", COFFEE)]


async def test_a_turn_that_cannot_be_kept_is_not_acknowledged(
    talker: Talker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StorageFull("The disk is full.")

    monkeypatch.setattr(api.services.conversations, "_keep", full)
    assert (await talker.ask(COFFEE)).status_code == 507
    streamed = await talker.ask(COFFEE, stream=True)
    assert events(streamed)[-1]["error"]["code"] == "insufficient_storage"
    assert "[DONE]" not in streamed.text


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-ragagent-session": ""}, "x-ragagent-session"),
        ({"x-ragagent-session": "a b"}, "x-ragagent-session"),
        ({"x-ragagent-session": "a" * 129}, "x-ragagent-session"),
        ({"x-ragagent-session": "talk", "idempotency-key": ""}, "idempotency-key"),
        ({"x-ragagent-session": "talk", "idempotency-key": "k" * 256}, "idempotency-key"),
    ],
)
async def test_headers_that_make_no_sense(api: Api, headers: dict[str, str], param: str) -> None:
    error = await api.refusal(400, "POST", PATH, json=body(COFFEE), headers=headers)
    assert error["param"] == param
    assert param in error["message"]


async def test_what_is_too_long_to_be_kept_is_refused_before_any_work(talker: Talker) -> None:
    reply = await talker.ask("coffee " * 400)
    assert reply.status_code == 413
    assert reply.json()["error"]["param"] == "messages"
    assert not talker.generator.prompts


async def test_an_answer_that_was_cut_is_kept_as_incomplete(talker: Talker, api: Api) -> None:
    talker.generator._is_cut = True
    reply = await talker.ask(COFFEE)
    caller = await api.services.access.caller(None)
    turn = await api.services.conversations.get(caller, reply.headers["x-ragagent-turn"])
    assert (turn.status, turn.answer) == ("incomplete", ANSWER)
    assert turn.messages == (Message("user", COFFEE),)


async def test_a_session_can_be_looked_at_and_erased(talker: Talker, api: Api) -> None:
    turn = (await talker.ask(COFFEE)).headers["x-ragagent-turn"]
    shown = await api.json("GET", "/v1/ragagent/sessions/talk")
    assert (shown["object"], shown["id"]) == ("ragagent.session", "talk")
    created = shown["turns"][0].pop("created_at")
    assert abs(created - time.time()) < 60
    assert shown["turns"] == [
        {
            "object": "ragagent.session.turn",
            "id": turn,
            "status": "completed",
            "messages": [{"role": "user", "content": COFFEE}],
            "answer": ANSWER,
        }
    ]
    await api.json("DELETE", "/v1/ragagent/sessions/talk")
    assert (await api.json("GET", "/v1/ragagent/sessions/talk"))["turns"] == []
    with api.services.conversations._database.read() as tx:
        assert tx.execute("SELECT messages || answer || payload FROM turns").fetchall()[0][0] == "[]"
    await talker.ask("And coffee plants again?")
    assert talker.told() == [("user", "And coffee plants again?")]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_that_there_is_not(api: Api, method: str) -> None:
    error = await api.refusal(404, method, "/v1/ragagent/sessions/none")
    assert error["message"] == "There is no session 'none', or not any more."


async def test_sessions_in_a_redis_that_nobody_names_are_refused_before_any_process_starts() -> None:
    with pytest.raises(ConfigError, match=r"'session\.store' has value 'redis', and 'redis\.url' names none"):
        worker.prepare(config_file.load(environ={"RAGAGENT_SESSION__STORE": "redis"}))
