"""Answers and streams as the official client's types have them, what a request may ask for, and clients that leave."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

import anyio
import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.types import ASGIApp

from application import TEXTS, Api, conforms
from fakes import BagOfWords, Endless, Failing, Scripted
from leaving import Leaving
from ragagent.config import Server as Settings
from ragagent.edge.server import Server
from ragagent.errors import Upstream
from ragagent.providers.embedders import Embedders
from ragagent.types import Usage

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
QUESTION = "When did the Øresund Bridge open?"


def asking(store: str = "facts", question: str = QUESTION, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "ragagent", "messages": messages, "ragagent": {"stores": [store]}, **more}


def events(reply: httpx.Response) -> list[Any]:
    """Return the stream's events; every line of it is one of them or empty."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [data if data == "[DONE]" else json.loads(data) for data in (line[6:] for line in lines)]


def without_citations(completion: dict[str, Any]) -> dict[str, Any]:
    """Return the completion as the client's types have it. They know citations of web pages alone, not of files."""
    (choice,) = completion["choices"]
    return {**completion, "choices": [{**choice, "message": {**choice["message"], "annotations": []}}]}


async def say(app: ASGIApp, body: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.post(PATH, json=body)


# What the client gets


async def test_an_answer_is_a_chat_completion_with_file_citations(api: Api) -> None:
    store = await api.store(**TEXTS)
    reply = await api.http.post(PATH, json=asking(store))
    completion = conforms(ChatCompletion, without_citations(reply.json()))
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    message = reply.json()["choices"][0]["message"]
    (citation,) = message["annotations"]
    assert citation["type"] == "file_citation"
    assert (citation["filename"], citation["index"]) == ("bridge", citation["end_index"])
    assert message["content"][citation["start_index"] : citation["end_index"]] == citation["quote"]
    assert TEXTS["bridge"][citation["source_start"] : citation["source_end"]] == citation["quote"]
    explained = reply.json()["ragagent"]
    assert (explained["evidence"], explained["cache"]) == ("found", reply.headers["x-ragagent-cache"])
    assert explained["generations"] == {store: int(reply.headers["x-ragagent-generation"])}


async def test_a_refusal_is_a_chat_completion_to_the_letter(api: Api) -> None:
    await api.store(**TEXTS)
    reply = await api.http.post(PATH, json=asking(question="Who won the chess championship of 1894?"))
    completion = conforms(ChatCompletion, reply)
    assert completion.choices[0].message.annotations == []
    assert reply.json()["ragagent"]["evidence"] == "none"


@pytest.mark.parametrize("question", [QUESTION, "Who won the chess championship of 1894?"])
async def test_every_event_of_a_stream_is_a_chunk(api: Api, question: str) -> None:
    await api.store(**TEXTS)
    reply = await api.http.post(PATH, json=asking(question=question, stream=True))
    *chunks, end = events(reply)
    assert end == "[DONE]"
    assert reply.headers["x-accel-buffering"] == "no"
    parsed = [conforms(ChatCompletionChunk, chunk) for chunk in chunks]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in parsed}) == 1
    assert parsed[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in parsed] == [None] * (len(parsed) - 1) + ["stop"]
    assert "ragagent" in chunks[-1]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
async def test_usage_is_streamed_only_to_who_asks(api: Api, options: Any) -> None:
    await api.store(**TEXTS)
    *silent, _ = events(await api.http.post(PATH, json=asking(stream=True, stream_options=options)))
    assert all(chunk["choices"] for chunk in silent)
    asked = asking(stream=True, stream_options={"include_usage": True})
    *_, usage, _ = events(await api.http.post(PATH, json=asked))
    assert conforms(ChatCompletionChunk, usage).usage
    assert usage["choices"] == []


async def test_a_cached_answer_streams_what_it_said_before(api: Api) -> None:
    await api.store(**TEXTS)

    async def ask() -> tuple[str, str, Any]:
        reply = await api.http.post(PATH, json=asking(stream=True))
        *chunks, _ = events(reply)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        text = "".join(delta.get("content") or "" for delta in deltas)
        return reply.headers["x-ragagent-cache"], text, deltas[-1]["annotations"]

    (first, *said), (second, *repeated) = await ask(), await ask()
    assert (first, second) == ("miss", "l1")
    assert said == repeated


async def test_an_answer_that_was_cut_says_so(api: Api) -> None:
    await api.store(**TEXTS)
    with api.speaking(Scripted("It opened in", usage=Usage(5, 3), is_cut=True)) as app:
        completion = conforms(ChatCompletion, without_citations((await say(app, asking())).json()))
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage
    assert completion.usage.total_tokens == 8


# What a request may ask for


async def test_nulls_are_as_good_as_absent(api: Api) -> None:
    await api.store(**TEXTS)
    fields = ("stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "n", "tools")
    body = {**asking(), **dict.fromkeys((*fields, "tool_choice", "response_format", "user"))}
    conforms(ChatCompletion, without_citations(await api.json("POST", PATH, json=body)))
    body["ragagent"] = None
    await api.json("POST", PATH, json=body)
    tool = {"type": "file_search", "vector_store_ids": None, "max_num_results": None, "filters": None}
    body["tools"] = [{**tool, "ranking_options": {"ranker": None, "score_threshold": None, "hybrid_search": None}}]
    await api.json("POST", PATH, json=body)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
    ],
)
async def test_the_generator_hears_of_the_limit_under_either_name(
    api: Api, fields: dict[str, Any], limit: int | None
) -> None:
    await api.store(**TEXTS)
    generator = Scripted("In 2000 [1].")
    with api.speaking(generator) as app:
        assert (await say(app, asking(**fields))).status_code == 200
    assert generator.prompts[0].max_tokens == limit


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_impossible_limit_is_refused_under_its_own_name(api: Api, field: str) -> None:
    assert (await api.refusal(400, "POST", PATH, json=asking() | {field: 0}))["param"] == field


async def test_the_talk_so_far_reaches_the_generator(api: Api) -> None:
    await api.store(**TEXTS)
    generator = Scripted("In 2000 [1].")
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Do you know"}, {"type": "text", "text": "bridges?"}]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "Some.", "annotations": []},
        {"role": "user", "content": QUESTION},
    ]
    with api.speaking(generator) as app:
        assert (await say(app, asking(messages=talk))).status_code == 200
    (prompt,) = generator.prompts
    said = [message.content for message in prompt.messages]
    assert prompt.question == QUESTION
    assert any("Be brief." in text for text in said)
    assert "Do you know\nbridges?" in said
    assert "Some." in said


async def test_our_own_field_wins_over_the_tool_and_the_tool_over_the_profile(api: Api) -> None:
    one, two = await api.store("one", **TEXTS), await api.store("two", **TEXTS)
    tool = {"type": "file_search", "vector_store_ids": ["two"]}
    generator = Scripted("In 2000 [1].")

    async def searched(**fields: Any) -> set[str]:
        body = {"model": "ragagent", "messages": [{"role": "user", "content": QUESTION}], **fields}
        assert (await say(app, body)).status_code == 200
        return {item.store_id for item in generator.prompts[-1].evidence}

    with api.speaking(generator) as app:
        assert await searched() == {one, two}
        assert await searched(tools=[tool]) == {two}
        assert await searched(tools=[tool], ragagent={"stores": [one]}) == {one}


async def test_each_setting_of_a_search_is_taken_from_where_it_is_given(api: Api) -> None:
    await api.store(**TEXTS)
    far = {"ranking_options": {"score_threshold": 1.0}}
    tool = {"type": "file_search", "vector_store_ids": ["facts"], **far}
    for fields in ({"tools": [tool]}, {"ragagent": {"stores": ["facts"], **far}}):
        reply = await api.json("POST", PATH, json=asking(question="bridge wall coffee", **fields))
        assert reply["ragagent"]["evidence"] == "none", fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": 5}]}]}, "messages.0.content.0.type"),
        ({"ragagent": {"stores": "facts"}}, "ragagent.stores"),
        ({"ragagent": {"results": 51}}, "ragagent.results"),
        ({"stream_options": 5}, "stream_options"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_name(api: Api, fields: dict[str, Any], param: str) -> None:
    assert (await api.refusal(400, "POST", PATH, json=asking(**fields)))["param"] == param


MISSPELT = {"type": "eq", "key": "taem", "value": "hr"}


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"messages": [{"role": "user", "content": "x" * 40_000}]}, 400, "messages"),
        ({"ragagent": {"stores": ["facts"], "filters": MISSPELT}}, 400, "ragagent.filters"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["facts"], "filters": MISSPELT}]}, 400, "tools"),
        ({"ragagent": {"stores": ["nowhere"]}}, 404, "ragagent.stores"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["nowhere"]}]}, 404, "tools"),
        ({"ragagent": {"stores": ["facts"] + [f"s{n}" for n in range(8)]}}, 400, "ragagent.stores"),
    ],
)
async def test_what_a_search_refuses_is_named_by_the_field_of_the_chat(
    api: Api, fields: dict[str, Any], status: int, param: str
) -> None:
    keyed = {"external_id": "1", "text": "The office opens at nine.", "attributes": {"team": "hr"}}
    for store in ("facts", *(f"s{n}" for n in range(8))):
        await api.store(store)
        await api.json("POST", "/v1/ragagent/documents", json={"store": store, "documents": [keyed]})
    body = {"model": "ragagent", "messages": [{"role": "user", "content": QUESTION}], **fields}
    for stream in (False, True):
        assert (await api.refusal(status, "POST", PATH, json={**body, "stream": stream}))["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_of_another_embedder_is_a_conflict_that_no_retry_mends(api: Api, stream: bool) -> None:
    store = await api.store()
    api.services.catalog._embedders = Embedders(BagOfWords(3, "another"))
    reply = await api.http.post(PATH, json=asking(store, stream=stream))
    assert reply.status_code == 409
    assert reply.headers["x-should-retry"] == "false"


# When the generator fails


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_is_a_status(api: Api, stream: bool) -> None:
    await api.store(**TEXTS)
    with api.speaking(Failing(Upstream("The endpoint is down.", retry_after=2.5), 0)) as app:
        reply = await say(app, asking(stream=stream))
    assert reply.status_code == 502
    assert reply.headers["retry-after"] == "3"
    assert reply.json()["error"]["message"] == "The endpoint is down."


async def test_a_failure_after_it_is_the_last_event_and_there_is_no_done(api: Api) -> None:
    await api.store(**TEXTS)
    with api.speaking(Failing(Upstream("The endpoint broke off."), 3)) as app:
        *_, last = events(await say(app, asking(stream=True)))
    assert last["error"]["message"] == "The endpoint broke off."
    assert last["error"]["code"] == "upstream_error"


async def test_a_mistake_of_ours_is_reported_without_its_text(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await api.store(**TEXTS)
    with api.speaking(Failing(LookupError("my secret"), 3)) as app:
        reply = await say(app, asking(stream=True))
    *_, last = events(reply)
    assert last["error"]["code"] == "internal_error"
    assert "secret" not in reply.text
    assert "my secret" in caplog.text


# When the client leaves


@pytest.mark.parametrize(("after", "slow"), [(1, False), (1, True), (2, True), (5, False), (5, True)])
async def test_a_client_that_leaves_a_stream_ends_the_models_talk(api: Api, after: int, slow: bool) -> None:
    await api.store(**TEXTS)
    generator = Endless()
    with api.speaking(generator) as app:
        await Leaving(generator, after, slow=slow).post(app, PATH, asking(stream=True))
    # Soon, not when the garbage collector comes by: a model talks, and charges, until its connection is closed.
    with anyio.fail_after(5):
        await generator.ended.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_word_ends_the_models_thinking(
    api: Api, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await api.store(**TEXTS)
    generator = Endless(thinks=True)
    client = Leaving(generator, None)
    with api.speaking(generator) as app:
        await client.post(app, PATH, asking(stream=stream))
    with anyio.fail_after(5):
        await generator.ended.wait()
    assert client.received == []
    assert errors(caplog.records) == []


@pytest.mark.parametrize("thinks", [False, True])
async def test_over_a_real_connection_it_is_the_same(api: Api, thinks: bool) -> None:
    await api.store(**TEXTS)
    generator = Endless(thinks=thinks)
    with api.speaking(generator) as app, socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, [listener.dup()], Settings(keep_alive_seconds=0.1, graceful_seconds=5))
        await server.startup()
        await server.accept()
        body = json.dumps(asking(stream=True)).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        async with await anyio.connect_tcp("127.0.0.1", listener.getsockname()[1]) as client:
            await client.send(head + body)
            with anyio.fail_after(10):
                await generator.began.wait()
        with anyio.fail_after(10):
            await generator.ended.wait()
        await server.drain()


def errors(records: Sequence[Any]) -> list[Any]:
    return [record for record in records if record.levelname in ("WARNING", "ERROR")]
