"""Collections and the search over one, as the client's types have them."""

from __future__ import annotations

from typing import Any

import pytest
from openai.pagination import SyncCursorPage, SyncPage
from openai.types import VectorStore, VectorStoreDeleted, VectorStoreSearchResponse

from application import TEXTS, Api, conforms
from fakes import BagOfWords
from ragagent.providers.embedders import Embedders

pytestmark = pytest.mark.anyio

PATH = "/v1/vector_stores"
SEARCH = f"{PATH}/facts/search"


# Stores


@pytest.mark.parametrize(
    "given",
    [
        {"content": b""},
        {"json": {}},
        {"json": dict.fromkeys(["name", "metadata", "file_ids", "chunking_strategy", "expires_after"])},
        {"json": {"name": "facts", "metadata": {"a": "b"}, "file_ids": []}},
    ],
)
async def test_a_store_is_a_vector_store_wherever_it_is_shown(api: Api, given: dict[str, Any]) -> None:
    reply = await api.http.post(PATH, **given)
    created = conforms(VectorStore, reply)
    assert int(reply.headers["x-ragagent-seq"]) > 0
    assert (created.status, created.file_counts.total, created.usage_bytes) == ("completed", 0, 0)
    assert conforms(VectorStore, await api.http.get(f"{PATH}/{created.id}")) == created
    page = conforms(SyncCursorPage[VectorStore], await api.http.get(PATH))
    assert (page.data, page.has_more) == ([created], False)


async def test_a_store_is_found_by_its_name_as_well(api: Api) -> None:
    store = await api.store("facts")
    assert (await api.json("GET", f"{PATH}/facts"))["id"] == store


async def test_a_store_begins_with_the_files_it_is_given(api: Api) -> None:
    files = [await api.upload(text, f"{name}.txt") for name, text in TEXTS.items()]
    created = await api.http.post(PATH, json={"name": "facts", "file_ids": files})
    fresh = {"x-ragagent-min-seq": created.headers["x-ragagent-seq"]}
    seen = await api.json("POST", SEARCH, json={"query": "bridge"}, headers=fresh)
    assert seen["data"][0]["file_id"] == files[0]
    shown = conforms(VectorStore, await api.http.get(f"{PATH}/facts"))
    assert (shown.file_counts.completed, shown.file_counts.total) == (3, 3)
    assert shown.usage_bytes > 0


async def test_a_store_with_an_unknown_file_is_not_made(api: Api) -> None:
    body = {"name": "facts", "file_ids": [await api.upload(), "file-gone"]}
    assert "'file-gone'" in (await api.refusal(404, "POST", PATH, json=body))["message"]
    assert (await api.json("GET", PATH))["data"] == []


async def test_only_what_is_given_changes(api: Api) -> None:
    created = await api.json("POST", PATH, json={"name": "facts", "metadata": {"a": "b"}})
    path = f"{PATH}/{created['id']}"
    assert (await api.json("POST", path, json={"name": "new"})) == {**created, "name": "new"}
    assert (await api.json("POST", path, json={"name": None, "metadata": {}}))["metadata"] == {}
    conforms(VectorStore, await api.http.post(path, json={}))
    assert (await api.json("GET", path)) == {**created, "name": "new", "metadata": {}}


@pytest.mark.parametrize("path", [PATH, f"{PATH}/facts"])
async def test_a_promise_to_expire_is_not_made(api: Api, path: str) -> None:
    await api.store()
    body = {"expires_after": {"anchor": "last_active_at", "days": 1}}
    assert (await api.refusal(400, "POST", path, json=body))["param"] == "expires_after"


async def test_a_deleted_store_is_gone(api: Api) -> None:
    store = await api.store(**TEXTS)
    assert conforms(VectorStoreDeleted, await api.http.delete(f"{PATH}/facts")).id == store
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", ""), ("POST", "/search")):
        error = await api.refusal(404, method, f"{PATH}/{store}{path}", json={"query": "x"})
        assert error["param"] == "vector_store_id"


# Search


async def found(api: Api, query: Any = "Øresund Bridge", **fields: Any) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = (await api.json("POST", SEARCH, json={"query": query, **fields}))["data"]
    return data


async def test_a_search_is_a_page_of_results_to_the_letter(api: Api) -> None:
    await api.store(**TEXTS)
    reply = await api.http.post(SEARCH, json={"query": "Øresund Bridge"})
    page = conforms(SyncPage[VectorStoreSearchResponse], reply)
    assert page.data[0].filename == "bridge"
    assert page.data[0].content[0].text == TEXTS["bridge"]
    said = reply.json()
    assert (said["object"], said["search_query"]) == ("vector_store.search_results.page", ["Øresund Bridge"])
    assert (said["has_more"], said["next_page"]) == (False, None)
    first = said["data"][0]
    assert TEXTS["bridge"][first["start"] : first["end"]] == first["content"][0]["text"]
    assert first["chunk_id"].startswith("chunk_")
    assert set(first["scores"]) == {"dense", "lexical"}
    assert reply.headers["x-ragagent-cache"] == "miss"
    assert {stage.partition(";")[0] for stage in reply.headers["server-timing"].split(", ")} > {"embed", "search"}


async def test_a_search_of_nothing_is_an_empty_page(api: Api) -> None:
    await api.store()
    assert conforms(SyncPage[VectorStoreSearchResponse], await api.http.post(SEARCH, json={"query": "x"})).data == []


async def test_results_are_best_first_and_bounded(api: Api) -> None:
    await api.store(a="The heron waits.", b="The heron flies.", c="A badger digs.")
    best = await found(api, "heron waits", max_num_results=2)
    assert [item["filename"] for item in best] == ["a", "b"]
    assert best[0]["score"] > best[1]["score"]


async def test_several_queries_share_one_list_best_first(api: Api) -> None:
    await api.store(**TEXTS)
    queries = ["Øresund Bridge", "Great Wall of China", "Coffee plants"]
    together = await found(api, queries)
    scores = [item["score"] for item in together]
    assert scores == sorted(scores, reverse=True)
    best: dict[str, float] = {}
    for item in [item for query in queries for item in await found(api, query)]:
        best[item["chunk_id"]] = max(item["score"], best.get(item["chunk_id"], 0.0))
    assert {item["chunk_id"]: item["score"] for item in together} == best
    assert len(together) == len(best)
    assert len(await found(api, queries, max_num_results=2)) == 2


async def test_a_threshold_and_each_leg_alone_are_obeyed(api: Api) -> None:
    await api.store(a="The heron waits.", b="A badger digs.")

    async def names(**ranking: Any) -> list[str]:
        return [item["filename"] for item in await found(api, "heron", ranking_options=ranking)]

    assert await names(hybrid_search={"embedding_weight": 0, "text_weight": 1}) == ["a"]
    assert await names(score_threshold=0.9) == ["a"]
    assert (await names(hybrid_search={"embedding_weight": 1, "text_weight": 0}))[0] == "a"
    assert (await names(fusion="rrf"))[0] == (await names(fusion="convex"))[0] == "a"


async def test_a_filter_narrows_and_a_key_that_nobody_has_is_refused(api: Api) -> None:
    await api.store()
    documents = [
        {"external_id": str(year), "text": f"The report of {year}.", "attributes": {"year": year}}
        for year in range(2020, 2025)
    ]
    await api.json("POST", "/v1/ragagent/documents", json={"store": "facts", "documents": documents})
    late = await found(api, "report", filters={"type": "gte", "key": "year", "value": 2023})
    assert {item["attributes"]["year"] for item in late} == {2023, 2024}
    misspelt = {"query": "report", "filters": {"type": "gte", "key": "yaer", "value": 2023}}
    error = await api.refusal(400, "POST", SEARCH, json=misspelt)
    assert (error["param"], error["code"]) == ("filters", "unknown_attribute")


async def test_a_search_in_another_embedders_space_is_a_conflict(api: Api) -> None:
    await api.store(**TEXTS)
    api.services.catalog._embedders = Embedders(BagOfWords(3, "another"))
    reply = await api.http.post(SEARCH, json={"query": "x"})
    assert reply.status_code == 409
    assert reply.headers["x-should-retry"] == "false"
