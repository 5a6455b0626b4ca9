"""Vector stores, and the search over one of them."""

from __future__ import annotations

import pytest
from openai.types import VectorStore, VectorStoreDeleted, VectorStoreSearchResponse

from application import Api, conforms

pytestmark = pytest.mark.anyio

PATH = "/v1/vector_stores"


async def test_a_store_goes_its_way_in_the_clients_types(api: Api) -> None:
    body = {"name": "birds", "metadata": {"k": "v"}}
    created = conforms(VectorStore, await api.json("POST", PATH, json=body))
    assert (created.name, created.metadata, created.file_counts.total) == ("birds", {"k": "v"}, 0)
    await api.upsert(created.id, a="The heron.")
    shown = conforms(VectorStore, await api.json("GET", f"{PATH}/{created.id}"))
    assert (shown.status, shown.file_counts.completed) == ("completed", 1)
    renamed = conforms(VectorStore, await api.json("POST", f"{PATH}/{created.id}", json={"name": "waders"}))
    assert (renamed.name, renamed.metadata) == ("waders", {"k": "v"})
    assert conforms(VectorStoreDeleted, await api.json("DELETE", f"{PATH}/{created.id}")).deleted
    await api.refusal(404, "GET", f"{PATH}/{created.id}")


async def test_a_store_needs_no_body(api: Api) -> None:
    assert (await api.http.post(PATH)).status_code == 200


async def test_a_store_is_not_half_made_with_a_wrong_file(api: Api) -> None:
    await api.refusal(404, "POST", PATH, json={"name": "half", "file_ids": ["file-none"]})
    assert (await api.json("GET", PATH))["data"] == []


async def test_an_expiry_is_refused_rather_than_forgotten(api: Api) -> None:
    expiry = {"anchor": "last_active_at", "days": 1}
    assert (await api.refusal(400, "POST", PATH, json={"expires_after": expiry}))["param"] == "expires_after"


async def test_results_are_the_clients_type_best_first_and_bounded(api: Api) -> None:
    store = await api.store(a="The heron waits.", b="The heron flies.", c="A badger digs.")
    body = {"query": "heron waits", "max_num_results": 2}
    found = (await api.json("POST", f"{PATH}/{store}/search", json=body))["data"]
    assert [conforms(VectorStoreSearchResponse, item).filename for item in found] == ["a", "b"]
    assert found[0]["score"] > found[1]["score"]


async def test_a_threshold_and_each_leg_alone_are_obeyed(api: Api) -> None:
    store = await api.store(a="The heron waits.", b="A badger digs.")

    async def search(**ranking: object) -> list[str]:
        body = {"query": "heron", "ranking_options": ranking}
        return [item["filename"] for item in (await api.json("POST", f"{PATH}/{store}/search", json=body))["data"]]

    assert await search(hybrid_search={"embedding_weight": 0, "text_weight": 1}) == ["a"]
    assert await search(score_threshold=0.9) == ["a"]
    assert (await search())[0] == "a"


async def test_several_queries_are_one_list_without_repeats(api: Api) -> None:
    store = await api.store(a="The heron waits.", b="A badger digs.")
    found = await api.json("POST", f"{PATH}/{store}/search", json={"query": ["heron", "badger"]})
    assert sorted(item["filename"] for item in found["data"]) == ["a", "b"]
    assert found["search_query"] == ["heron", "badger"]
