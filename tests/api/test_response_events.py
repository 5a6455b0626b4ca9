"""Streams of responses: each event of the client's own types, in its order, and the client's own ways to follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from application import Api
from responding import PATH, QUESTION, asking, events

pytestmark = pytest.mark.anyio

LIFECYCLE = ["response.created", "response.in_progress"]
SEARCH = [
    "response.output_item.added",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.output_item.done",
]


def kinds(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the types of the events, a run of deltas as one."""
    types = [event["type"] for event in found]
    return [kind for at, kind in enumerate(types) if "delta" not in kind or types[at - 1] != kind]


@pytest.mark.parametrize(
    ("asked", "cited"), [(QUESTION, True), ("Who won the chess championship of 1894?", False), ("长城多长？", True)]
)
async def test_a_stream_has_every_event_in_its_order(api: Api, facts: str, asked: str, cited: bool) -> None:
    reply = await api.http.post(PATH, json=asking(asked, stream=True))
    found = events(reply)
    assert reply.headers["x-accel-buffering"] == "no"
    said = [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        *(["response.output_text.annotation.added"] if cited else []),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert kinds(found) == [*LIFECYCLE, *SEARCH, *said, "response.completed"]
    whole = (await api.http.post(PATH, json=asking(asked))).json()
    last = found[-1]["response"]
    content = last["output"][1]["content"]
    assert content == whole["output"][1]["content"]
    assert "".join(event["delta"] for event in found if event["type"].endswith("text.delta")) == content[0]["text"]
    assert [event["annotation"] for event in found if "annotation" in event] == content[0]["annotations"]
    assert {event["response"]["id"] for event in found if "response" in event} == {last["id"]}


async def test_the_clients_own_helper_follows_a_stream(api: Api, facts: str) -> None:
    async with api.openai.responses.stream(
        model="ragagent", input=QUESTION, tools=[{"type": "file_search", "vector_store_ids": [facts]}]
    ) as stream:
        snapshot = ""
        async for event in stream:
            if event.type == "response.output_text.delta":
                snapshot = event.snapshot
        final = await stream.get_final_response()
    assert snapshot == final.output_text
    assert "1 July 2000" in final.output_text
    assert (await api.openai.responses.retrieve(final.id)).output_text == final.output_text


async def test_the_reply_can_be_read_as_it_comes(api: Api, facts: str) -> None:
    async with api.openai.responses.with_streaming_response.create(
        model="ragagent", input=QUESTION, stream=True
    ) as reply:
        assert reply.headers["x-ragagent-cache"] == "miss"
        lines = [line async for line in reply.iter_lines()]
    assert lines[0] == "event: response.created"
    assert not any("[DONE]" in line for line in lines)
