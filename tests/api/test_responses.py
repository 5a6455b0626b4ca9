"""Responses as the official client makes, streams, continues and keeps them; what is refused, and who leaves."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from openai.types.responses import Response

from application import TEXTS, Api, conforms
from fakes import BagOfWords, Endless, Failing, Scripted
from leaving import Leaving
from ragagent.api import responses
from ragagent.errors import StorageFull, Upstream
from ragagent.providers.embedders import Embedders
from ragagent.types import Usage
from responding import PATH, QUESTION, asking, client, events, say, user

pytestmark = pytest.mark.anyio


# What the client gets


@pytest.mark.parametrize(
    ("asked", "words", "file"), [(QUESTION, "1 July 2000", "bridge"), ("长城的总长度是多少？", "21196千米", "长城")]
)
async def test_a_response_has_its_search_and_its_answer(
    api: Api, facts: str, asked: str, words: str, file: str
) -> None:
    reply = await api.http.post(PATH, json=asking(asked))
    response = conforms(Response, reply)
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert words in response.output_text
    search, message = response.output
    assert search.type == "file_search_call"
    assert (search.queries, search.status, search.results) == ([asked], "completed", None)
    assert message.type == "message"
    cited = reply.json()["output"][1]["content"][0]["annotations"]
    assert cited
    for citation in cited:
        assert (citation["type"], citation["filename"], citation["index"]) == (
            "file_citation",
            file,
            citation["end_index"],
        )
        assert response.output_text[citation["start_index"] : citation["end_index"]] == citation["quote"]
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    explained = reply.json()["ragagent"]
    assert (explained["evidence"], explained["cache"]) == ("found", reply.headers["x-ragagent-cache"])
    assert explained["generations"] == {facts: int(reply.headers["x-ragagent-generation"])}


async def test_a_refusal_is_a_response_to_the_letter(api: Api, facts: str) -> None:
    reply = await api.http.post(PATH, json=asking("Who won the chess championship of 1894?"))
    response = conforms(Response, reply)
    assert response.status == "completed"
    assert "could not find" in response.output_text
    assert reply.json()["ragagent"]["evidence"] == "none"


async def test_the_results_of_the_search_come_to_who_asks_for_them(api: Api, facts: str) -> None:
    for tier in ("miss", "l1"):  # An answer from the cache has no evidence with it.
        reply = await api.http.post(PATH, json=asking(include=["file_search_call.results"]))
        assert reply.headers["x-ragagent-cache"] == tier
        results = conforms(Response, reply).output[0].results  # type: ignore[union-attr]
        assert results
        assert (results[0].filename, results[0].text) == ("bridge", TEXTS["bridge"])
        assert reply.json()["output"][0]["results"][0]["chunk_id"].startswith("chunk_")
    found = events(await api.http.post(PATH, json=asking(include=["file_search_call.results"], stream=True)))
    assert found[6]["item"]["results"] == reply.json()["output"][0]["results"]


async def test_what_was_asked_is_said_again(api: Api, facts: str) -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "temperature": 0.5,
        "metadata": {"session": "7"},
        "parallel_tool_calls": False,
        "tool_choice": {"type": "file_search"},
        "tools": [
            {
                "type": "file_search",
                "vector_store_ids": [facts],
                "max_num_results": 3,
                "filters": {"type": "and", "filters": [{"type": "ne", "key": "team", "value": "hr"}]},
                "ranking_options": {"score_threshold": 0.01},
            }
        ],
    }
    body = {"model": "ragagent", "input": QUESTION, **asked}
    shown = conforms(Response, await api.http.post(PATH, json=body)).model_dump(exclude_none=True)
    assert {name: shown[name] for name in asked} == asked


async def test_an_answer_that_was_cut_is_incomplete(api: Api, facts: str) -> None:
    with api.speaking(Scripted("It opened in", usage=Usage(5, 3), is_cut=True)) as app:
        response = conforms(Response, await say(app, asking()))
        found = events(await say(app, asking(stream=True)))
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (5, 3, 8)
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"][1]["status"] == found[-2]["item"]["status"] == "incomplete"


# What a request may ask for


async def test_nulls_are_as_good_as_absent(api: Api, facts: str) -> None:
    fields = ("instructions", "previous_response_id", "store", "stream", "max_output_tokens", "temperature", "metadata")
    others = ("include", "tools", "tool_choice", "text", "background", "conversation", "prompt", "reasoning", "top_p")
    conforms(Response, await api.http.post(PATH, json=asking() | dict.fromkeys((*fields, *others))))


async def test_what_means_nothing_here_is_ignored(api: Api, facts: str) -> None:
    harmless = {
        "background": False,
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": "required",
        "truncation": "auto",
        "prompt_cache_key": "k",
        "something_new": {"a": 1},
    }
    conforms(Response, await api.http.post(PATH, json=asking(**harmless)))


async def test_the_talk_so_far_reaches_the_generator(api: Api, facts: str) -> None:
    generator = Scripted("In 2000 [1].")
    talk = [
        {"role": "developer", "content": "Speak plainly."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": part} for part in ("Any", "b?")],
        },
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["Any"], "results": None},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Some.", "annotations": []}],
        },
        user(QUESTION),
    ]
    with api.speaking(generator) as app:
        assert (await say(app, asking(talk, instructions="Be brief."))).status_code == 200
    (prompt,) = generator.prompts
    assert prompt.question == QUESTION
    system, *said = [(message.role, message.content) for message in prompt.messages[:-1]]
    assert system[1].endswith("Be brief.\n\nSpeak plainly.")
    assert said == [("user", "Any\nb?"), ("assistant", "Some.")]


async def test_a_response_may_be_said_back_as_it_came(api: Api, facts: str) -> None:
    """The other way to go on, without state: clients append `response.output` to their own list."""
    first = await api.openai.responses.create(model="ragagent", input=QUESTION, store=False)
    back = [user(QUESTION), *(item.model_dump() for item in first.output), user("Where are coffee plants native to?")]
    second = await api.openai.responses.create(model="ragagent", input=back)  # type: ignore[arg-type]
    assert "Ethiopia" in second.output_text


async def test_our_own_field_wins_over_the_tool_and_the_tool_over_the_profile(api: Api) -> None:
    one, two = await api.store("one", **TEXTS), await api.store("two", **TEXTS)
    tool = {"type": "file_search", "vector_store_ids": ["two"]}
    generator = Scripted("In 2000 [1].")

    async def searched(**fields: Any) -> set[str]:
        assert (await say(app, {"model": "ragagent", "input": QUESTION, **fields})).status_code == 200
        return {item.store_id for item in generator.prompts[-1].evidence}

    with api.speaking(generator) as app:
        assert await searched() == {one, two}
        assert await searched(tools=[tool]) == {two}
        assert await searched(tools=[tool], ragagent={"stores": [one]}) == {one}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": " \n"}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "system", "content": "Be brief."}]}, "input"),
        ({"input": [user("Why?"), {"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input.1.type"),
        ({"input": [user("Why?"), {"type": "item_reference", "id": "msg_1"}]}, "input.1.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
        ({"input": [{"role": "user", "content": [{"type": 5}]}]}, "input.0.content.0.type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        ({"input": [{"content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, "text.format.type"),
        ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"ragagent": {"stores": "facts"}}, "ragagent.stores"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_name(
    api: Api, facts: str, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        refused = await api.refusal(400, "POST", PATH, json={**asking(), **fields, "stream": stream})
        assert refused["param"] == param


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": "x" * 40_000, "store": False}, 400, "input"),
        ({"ragagent": {"stores": ["nowhere"]}}, 404, "ragagent.stores"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["nowhere"]}], "ragagent": {}}, 404, "tools"),
        ({"model": "gpt-4"}, 404, "model"),
        ({"previous_response_id": "resp_none"}, 404, "previous_response_id"),
    ],
)
async def test_what_lies_below_is_named_by_the_field_of_the_request(
    api: Api, facts: str, fields: dict[str, Any], status: int, param: str
) -> None:
    for stream in (False, True):
        refused = await api.refusal(status, "POST", PATH, json={**asking(), **fields, "stream": stream})
        assert refused["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_of_another_embedder_is_a_conflict_that_no_retry_mends(
    api: Api, facts: str, stream: bool
) -> None:
    api.services.catalog._embedders = Embedders(BagOfWords(3, "another"))
    reply = await api.http.post(PATH, json=asking(stream=stream))
    assert reply.status_code == 409
    assert reply.headers["x-should-retry"] == "false"


# When the generator fails, or the disk


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_is_a_status(api: Api, facts: str, stream: bool) -> None:
    with api.speaking(Failing(Upstream("The endpoint is down.", retry_after=2.5), 0)) as app:
        reply = await say(app, asking(stream=stream))
    assert reply.status_code == 502
    assert reply.headers["retry-after"] == "3"
    assert reply.json()["error"]["message"] == "The endpoint is down."


async def test_a_failure_after_it_is_the_last_event_and_nothing_is_kept(api: Api, facts: str) -> None:
    with api.speaking(Failing(Upstream("The endpoint broke off."), 3)) as app:
        *_, last = events(await say(app, asking(stream=True)))
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"]["message"] == "The endpoint broke off."
        assert last["response"]["error"]["type"] == "upstream_error"
        async with client(app).responses.stream(model="ragagent", input=QUESTION) as followed:
            assert [event.type async for event in followed][-1] == "response.failed"
    await api.refusal(404, "GET", f"{PATH}/{last['response']['id']}")


async def test_a_mistake_of_ours_is_reported_without_its_text(
    api: Api, facts: str, caplog: pytest.LogCaptureFixture
) -> None:
    with api.speaking(Failing(LookupError("my secret"), 3)) as app:
        reply = await say(app, asking(stream=True))
    assert events(reply)[-1]["type"] == "response.failed"
    assert "secret" not in reply.text
    assert "my secret" in caplog.text


async def test_nothing_is_completed_that_could_not_be_kept(
    api: Api, facts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StorageFull("The disk takes no more.")

    monkeypatch.setattr(api.services.conversations, "add", full)
    assert (await api.http.post(PATH, json=asking())).status_code == 507
    *_, last = events(await api.http.post(PATH, json=asking(stream=True)))
    assert (last["type"], last["response"]["error"]["type"]) == ("response.failed", "insufficient_storage")
    assert (await api.http.post(PATH, json=asking(store=False))).status_code == 200


async def test_a_response_whose_forerunner_is_deleted_meanwhile_fails(api: Api, facts: str) -> None:
    first = await api.openai.responses.create(model="ragagent", input=QUESTION)
    generator = Scripted("In 2000 [1].")
    generator.gate = anyio.Event()
    with api.speaking(generator) as app:
        async with anyio.create_task_group() as tasks:

            async def delete() -> None:
                await generator.asked.wait()
                await api.openai.responses.delete(first.id)
                assert generator.gate
                generator.gate.set()

            tasks.start_soon(delete)
            reply = await say(app, asking(previous_response_id=first.id))
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "previous_response_not_found"


# When the client leaves


@pytest.mark.parametrize(("after", "slow"), [(1, False), (1, True), (2, True), (9, False), (12, True)])
async def test_a_client_that_leaves_a_stream_ends_the_models_talk(api: Api, facts: str, after: int, slow: bool) -> None:
    generator = Endless()
    with api.speaking(generator) as app:
        await Leaving(generator, after, slow=slow).post(app, PATH, asking(stream=True))
    with anyio.fail_after(5):
        await generator.ended.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_word_ends_the_models_thinking(
    api: Api, facts: str, stream: bool
) -> None:
    generator = Endless(thinks=True)
    leaving = Leaving(generator, None)
    with api.speaking(generator) as app:
        await leaving.post(app, PATH, asking(stream=stream))
    with anyio.fail_after(5):
        await generator.ended.wait()
    assert leaving.received == []


async def test_results_that_cannot_be_had_end_the_models_talk(
    api: Api, facts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Endless()

    async def broken(*_: object) -> None:
        raise Upstream("The embedder is down.")

    with api.speaking(generator) as app:
        monkeypatch.setattr(responses.Making, "results", broken)
        reply = await say(app, asking(stream=True))
    assert reply.status_code == 502
    with anyio.fail_after(5):
        await generator.ended.wait()
