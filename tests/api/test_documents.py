"""Texts under the caller's own ids."""

from __future__ import annotations

import pytest

from application import Api

pytestmark = pytest.mark.anyio

PATH = "/v1/ragagent/documents"


async def test_the_same_id_replaces_and_another_adds(api: Api) -> None:
    store = await api.store(a="The first heron.", b="A badger.")
    await api.upsert(store, a="The second heron.")
    found = await api.json("POST", f"/v1/vector_stores/{store}/search", json={"query": "heron badger"})
    assert {item["content"][0]["text"] for item in found["data"]} == {"The second heron.", "A badger."}


async def test_an_unchanged_text_is_not_written_again(api: Api) -> None:
    store = await api.store()
    (first,) = await api.upsert(store, a="The heron.")
    (again,) = await api.upsert(store, a="The heron.")
    assert first["id"] == again["id"]


async def test_a_write_says_its_seq_and_a_delete_what_there_was(api: Api) -> None:
    store = await api.store(a="The heron.")
    body = {"store": store, "external_ids": ["a", "nobody"]}
    reply = await api.http.request("DELETE", PATH, json=body)
    assert (reply.json()["deleted"], reply.json()["missing"]) == (["a"], ["nobody"])
    assert int(reply.headers["x-ragagent-seq"]) == reply.json()["seq"] > 0


async def test_a_store_is_found_by_name_as_well(api: Api) -> None:
    await api.store("by name")
    (row,) = await api.upsert("by name", a="The heron.")
    assert (row["status"], row["external_id"]) == ("completed", "a")


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"external_id": "a", "url": "http://example.org"}, "documents.0.url"),
        ({"external_id": "a"}, "documents.0.text"),
        ({"external_id": "", "text": "x"}, "documents.0.external_id"),
        ({"external_id": "a", "text": "x", "title": ""}, "documents.0.title"),
    ],
)
async def test_what_is_no_document_is_refused_by_name(api: Api, document: dict[str, str], param: str) -> None:
    body = {"store": await api.store(), "documents": [document]}
    assert (await api.refusal(400, "POST", PATH, json=body))["param"] == param
