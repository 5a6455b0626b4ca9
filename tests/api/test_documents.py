"""Texts under the caller's own ids: added, replaced, erased, each in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from openai.types.vector_stores import VectorStoreFile

from application import TEXTS, Api, conforms, running

pytestmark = pytest.mark.anyio

PATH = "/v1/ragagent/documents"


def document(external_id: str = "a", text: str = "A text.", **more: Any) -> dict[str, Any]:
    return {"external_id": external_id, "text": text, **more}


async def texts(api: Api, query: str) -> list[str]:
    found = await api.json("POST", "/v1/vector_stores/facts/search", json={"query": query})
    return [item["content"][0]["text"] for item in found["data"]]


@pytest.mark.parametrize("by_name", [False, True])
async def test_what_was_stored_is_found_when_the_reply_comes(api: Api, by_name: bool) -> None:
    store = await api.store()
    documents = [document(name, text, attributes={"name": name}) for name, text in TEXTS.items()]
    reply = await api.http.post(PATH, json={"store": "facts" if by_name else store, "documents": documents})
    said = reply.json()
    assert (said["object"], said["vector_store_id"]) == ("list", store)
    assert int(reply.headers["x-ragagent-seq"]) == said["seq"]
    assert [row["external_id"] for row in said["data"]] == list(TEXTS)
    for row in said["data"]:
        assert conforms(VectorStoreFile, row).status == "completed"
        assert row["attributes"] == {"name": row["external_id"]}
    assert (await texts(api, "Øresund Bridge"))[0] == TEXTS["bridge"]


async def test_the_same_id_replaces_and_another_adds(api: Api) -> None:
    await api.store(a="The gate is green.", b="A badger.")
    await api.upsert("facts", a="The gate is yellow.")
    assert set(await texts(api, "gate badger")) == {"The gate is yellow.", "A badger."}


async def test_the_same_again_changes_nothing(api: Api) -> None:
    await api.store()
    first, again = await api.upsert("facts", a="Same."), await api.upsert("facts", a="Same.")
    assert first == again


async def test_a_title_is_the_file_name_that_citations_give(api: Api) -> None:
    await api.store()
    body = {"store": "facts", "documents": [document(text=TEXTS["bridge"], title="Bridges", attributes=None)]}
    await api.json("POST", PATH, json=body)
    found = await api.json("POST", "/v1/vector_stores/facts/search", json={"query": "bridge"})
    assert found["data"][0]["filename"] == "Bridges"


async def test_a_delete_says_what_there_was(api: Api) -> None:
    store = await api.store(**TEXTS)
    body = {"store": "facts", "external_ids": ["wall", "nothing", "bridge"]}
    reply = await api.http.request("DELETE", PATH, json=body)
    said = reply.json()
    assert (reply.status_code, said["object"], said["vector_store_id"]) == (200, "list.deleted", store)
    assert (said["deleted"], said["missing"]) == (["wall", "bridge"], ["nothing"])
    assert int(reply.headers["x-ragagent-seq"]) == said["seq"]
    assert await texts(api, "bridge wall coffee") == [TEXTS["coffee"]]


async def test_a_thousand_ids_are_one_request(api: Api) -> None:
    await api.store()
    body = {"store": "facts", "external_ids": [str(number) for number in range(1000)]}
    assert len((await api.json("DELETE", PATH, json=body))["missing"]) == 1000
    body["external_ids"] = ["x"] * 1001
    assert (await api.refusal(400, "DELETE", PATH, json=body))["param"] == "external_ids"


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"text": None}, "documents.1.text", "missing_required_parameter"),
        ({"text": "  "}, "documents.1.text", "invalid_value"),
        ({"text": "a\0b"}, "documents.1.text", "invalid_value"),
        ({"text": 7}, "documents.1.text", "invalid_value"),
        ({"url": "http://169.254.169.254/"}, "documents.1.url", "invalid_value"),
        ({"external_id": ""}, "documents.1.external_id", "invalid_value"),
        ({"external_id": None}, "documents.1.external_id", "invalid_value"),
        ({"attributes": {"a": None}}, "documents.1.attributes.a", "invalid_value"),
        ({"title": ""}, "documents.1.title", "invalid_value"),
    ],
)
async def test_one_bad_document_is_named_and_nothing_is_written(
    api: Api, given: dict[str, Any], param: str, code: str
) -> None:
    await api.store()
    body = {"store": "facts", "documents": [document("good"), {**document("bad"), **given}]}
    error = await api.refusal(400, "POST", PATH, json=body)
    assert (error["param"], error["code"]) == (param, code)
    assert (await api.json("GET", "/v1/vector_stores/facts/files"))["data"] == []


async def test_a_text_has_a_longest_length(tmp_path: Path) -> None:
    async with running(tmp_path, RAGAGENT_INGEST__MAX_TEXT_CHARS="10") as api:
        await api.store(a="x" * 10)
        body = {"store": "facts", "documents": [document(text="x" * 11)]}
        assert "at most 10" in (await api.refusal(400, "POST", PATH, json=body))["message"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_unknown_store_is_not_found(api: Api, method: str) -> None:
    body = {"store": "nowhere", "documents": [document()], "external_ids": ["a"]}
    assert "'nowhere'" in (await api.refusal(404, method, PATH, json=body))["message"]


async def test_a_write_is_answered_as_one_though_another_erases_it_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path, indexing=False, RAGAGENT_INGEST__WAIT_SECONDS="0.5") as api:
        await api.store()
        replies: list[int] = []

        async def write() -> None:
            body = {"store": "facts", "documents": [document()]}
            replies.append((await api.http.post(PATH, json=body)).status_code)

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            with anyio.fail_after(5):
                while not (await api.json("GET", "/v1/vector_stores/facts/files"))["data"]:
                    await anyio.lowlevel.checkpoint()
            await api.http.request("DELETE", PATH, json={"store": "facts", "external_ids": ["a"]})
        assert replies == [202]


async def test_an_unknown_store_is_named_by_the_field_of_this_request(api: Api) -> None:
    document = {"external_id": "1", "text": "A text."}
    for method, rest in (("POST", {"documents": [document]}), ("DELETE", {"external_ids": ["1"]})):
        error = await api.refusal(404, method, "/v1/ragagent/documents", json={"store": "nowhere", **rest})
        assert error["param"] == "store"
