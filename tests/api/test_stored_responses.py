"""What is kept of a response, who sees it, and how another continues it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseItem
from pydantic import TypeAdapter

from application import Api, conforms
from fakes import Scripted
from ragagent.types import Caller, Message, Turn
from responding import PATH, QUESTION, asking, client, events, say, user

pytestmark = pytest.mark.anyio

ITEM: TypeAdapter[ResponseItem] = TypeAdapter(ResponseItem)


def said_in(item: Any) -> tuple[str, list[str]]:
    return item.role, [part.text for part in item.content]


async def test_a_response_is_kept_as_it_was_told(api: Api, facts: str) -> None:
    for stream in (False, True):
        reply = await api.http.post(PATH, json=asking(stream=stream, metadata={"a": "b"}))
        told = events(reply)[-1]["response"] if stream else reply.json()
        assert await api.json("GET", f"{PATH}/{told['id']}") == told


async def test_a_response_continues_another_and_that_another(api: Api, facts: str) -> None:
    generator = Scripted("So it is.")
    with api.speaking(generator) as app:
        ai = client(app)
        first = await ai.responses.create(model="ragagent", input="长城的总长度是多少？", instructions="Be brief.")
        said = [
            {"role": "developer", "content": "Speak plainly."},
            {"role": "user", "content": [{"type": "input_text", "text": "And where are coffee plants native to?"}]},
        ]
        second = await ai.responses.create(model="ragagent", input=said, previous_response_id=first.id)  # type: ignore[arg-type]
        stream = await ai.responses.create(
            model="ragagent", input=QUESTION, previous_response_id=second.id, instructions="Be polite.", stream=True
        )
        third = [event async for event in stream][-1].response  # type: ignore[union-attr]
    assert third.previous_response_id == second.id
    system, *talk = [(message.role, message.content) for message in generator.prompts[-1].messages[:-1]]
    assert talk == [
        ("user", "长城的总长度是多少？"),
        ("assistant", "So it is."),
        ("user", "And where are coffee plants native to?"),
        ("assistant", "So it is."),
    ]
    # Instructions are for the response that they came with; what was said by a developer is part of the talk.
    assert "Be brief." not in system[1]
    assert system[1].endswith("Be polite.\n\nSpeak plainly.")


async def test_two_may_continue_the_same(api: Api, facts: str) -> None:
    generator = Scripted("In 2000 [1].")
    with api.speaking(generator) as app:
        ai = client(app)
        first = await ai.responses.create(model="ragagent", input=QUESTION)
        for follower in ("And the wall?", "And coffee?"):
            await ai.responses.create(model="ragagent", input=follower, previous_response_id=first.id)
            assert [m.content for m in generator.prompts[-1].messages[1:-1]] == [QUESTION, "In 2000 [1]."]


async def test_what_is_not_stored_cannot_be_continued(api: Api, facts: str) -> None:
    response = await api.openai.responses.create(model="ragagent", input=QUESTION, store=False)
    assert response.model_extra
    assert response.model_extra["store"] is False
    with pytest.raises(openai.NotFoundError):
        await api.openai.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError) as refused:
        await api.openai.responses.create(model="ragagent", input="And?", previous_response_id=response.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert response.id in refused.value.message


async def test_a_deleted_response_is_gone(api: Api, facts: str) -> None:
    first = await api.openai.responses.create(model="ragagent", input=QUESTION)
    second = await api.openai.responses.create(model="ragagent", input=QUESTION, previous_response_id=first.id)
    await api.openai.responses.delete(first.id)
    for gone in (
        api.openai.responses.retrieve(first.id),
        api.openai.responses.delete(first.id),
        api.openai.responses.create(model="ragagent", input=QUESTION, previous_response_id=first.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await gone
    with pytest.raises(openai.NotFoundError):
        await api.openai.responses.input_items.list(first.id)
    # What continues it stays, and goes on without it.
    assert (await api.openai.responses.retrieve(second.id)).id == second.id
    await api.openai.responses.create(model="ragagent", input=QUESTION, previous_response_id=second.id)
    deleted = await api.json("DELETE", f"{PATH}/{second.id}")
    assert deleted == {"id": second.id, "object": "response", "deleted": True}


async def test_another_tenant_sees_nothing_of_it(api: Api, facts: str) -> None:
    kept = (await api.http.post(PATH, json=asking())).json()["id"]
    stranger = {"authorization": f"Bearer {api.key('stranger', tenant='other')}"}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        refused = await api.refusal(404, method, f"{PATH}/{kept}{path}", headers=stranger)
        assert refused["param"] == "response_id"
    body = {"model": "ragagent", "input": QUESTION, "previous_response_id": kept}
    assert (await api.refusal(404, "POST", PATH, json=body, headers=stranger))["param"] == "previous_response_id"
    assert (await api.http.get(f"{PATH}/{kept}")).status_code == 200


async def test_a_turn_of_a_chat_is_no_response_and_can_be_continued(api: Api, facts: str) -> None:
    said = Turn("resp_chat", 1_700_000_000, (Message("user", "Any bridges?"),), "Some.")
    await api.services.conversations.add(Caller(), said)
    await api.refusal(404, "GET", f"{PATH}/resp_chat")
    generator = Scripted("In 2000 [1].")
    with api.speaking(generator) as app:
        follow_up = await say(app, asking(previous_response_id="resp_chat"))
    assert [message.content for message in generator.prompts[0].messages[1:-1]] == ["Any bridges?", "Some."]
    listed = await api.json("GET", f"{PATH}/{follow_up.json()['id']}/input_items")
    assert [item["content"][0]["text"] for item in listed["data"]] == [QUESTION]


async def test_the_items_of_the_input_are_listed_in_pages(api: Api, facts: str) -> None:
    first = await api.openai.responses.create(model="ragagent", input=QUESTION)
    said: Any = [
        {"role": "developer", "content": "Speak plainly."},
        {"role": "assistant", "content": "Some."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "How long"}, {"type": "input_text", "text": "is it?"}],
        },
    ]
    second = await api.openai.responses.create(model="ragagent", input=said, previous_response_id=first.id)
    listed = api.openai.responses.input_items.list
    items = [item async for item in listed(second.id, order="asc", limit=2)]
    # With what it continues: all that this answer was made from.
    assert [item.type for item in items] == ["message", "file_search_call", *["message"] * 4]
    for item in items:
        ITEM.validate_python(item.model_dump(), strict=True)
    assert [said_in(item) for item in items[2:]] == [
        ("assistant", [first.output_text]),
        ("developer", ["Speak plainly."]),
        ("assistant", ["Some."]),
        ("user", ["How long", "is it?"]),
    ]
    assert [item.id async for item in listed(second.id, limit=4)] == [item.id for item in reversed(items)]
    assert [item.id async for item in listed(first.id)] == [items[0].id]
    page = f"{PATH}/{second.id}/input_items"
    before = await api.json("GET", page, params={"order": "asc", "before": items[4].id, "limit": "2"})
    assert [item["id"] for item in before["data"]] == [item.id for item in items[2:4]]
    assert before["has_more"] is True
    assert (await api.json("GET", page, params={"after": "msg_none"}))["data"] == []
    assert (await api.refusal(400, "GET", page, params={"limit": "0"}))["param"] == "limit"


async def test_what_the_search_found_is_not_kept(api: Api, facts: str) -> None:
    """The text of a document that is deleted must be gone."""
    told = await api.openai.responses.create(model="ragagent", input=QUESTION, include=["file_search_call.results"])
    kept = await api.openai.responses.retrieve(told.id)
    assert told.output[0].results  # type: ignore[union-attr]
    assert kept.output[0].results is None  # type: ignore[union-attr]
    assert (kept.output_text, kept.usage) == (told.output_text, told.usage)
    with pytest.raises(openai.BadRequestError) as refused:
        await api.openai.responses.retrieve(told.id, include=["file_search_call.results"])
    assert refused.value.param == "include"


async def test_what_is_finished_is_neither_cancelled_nor_streamed(api: Api, facts: str) -> None:
    response = await api.openai.responses.create(model="ragagent", input=QUESTION)
    with pytest.raises(openai.BadRequestError, match="background"):
        await api.openai.responses.cancel(response.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await api.openai.responses.retrieve(response.id, stream=True)
    assert refused.value.param == "stream"


async def test_what_is_too_long_to_be_kept_is_answered_without(api: Api, facts: str) -> None:
    long = [user("y" * 140_000), user(QUESTION)]
    refused = await api.refusal(413, "POST", PATH, json=asking(long))
    assert refused["param"] == "input"
    assert "'store' false" in refused["message"]
    assert "1 July 2000" in conforms(Response, await api.http.post(PATH, json=asking(long, store=False))).output_text
