"""What stands in a store and how far its ingest is, alone and in batches, as the client's types have it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from openai.pagination import SyncCursorPage, SyncPage
from openai.types.vector_stores import (
    FileContentResponse,
    VectorStoreFile,
    VectorStoreFileBatch,
    VectorStoreFileDeleted,
)

from application import TEXTS, Api, conforms, running
from ragagent.api.vector_store_files import shown
from ragagent.types import Caller

pytestmark = pytest.mark.anyio

FILES = "/v1/vector_stores/facts/files"
BATCHES = "/v1/vector_stores/facts/file_batches"


async def attach(api: Api, text: str = "A text.", filename: str = "a.txt", **fields: Any) -> dict[str, Any]:
    body = {"file_id": await api.upload(text, filename), **fields}
    attached: dict[str, Any] = await api.json("POST", FILES, json=body)
    return attached


# One file


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attributes": None, "chunking_strategy": None},
        {"attributes": {"a": "x", "b": 1, "c": 0.5, "d": True}, "chunking_strategy": {"type": "auto"}},
    ],
)
async def test_an_attached_file_is_the_clients_own_wherever_it_is_shown(api: Api, fields: dict[str, Any]) -> None:
    store = await api.store()
    attached = await attach(api, **fields)
    row = conforms(VectorStoreFile, attached)
    assert (row.status, row.vector_store_id, row.last_error) == ("completed", store, None)
    assert attached["attributes"] == (fields.get("attributes") or {})
    reply = await api.http.get(f"{FILES}/{row.id}")
    assert reply.json() == attached
    assert int(reply.headers["openai-poll-after-ms"]) > 0
    page = conforms(SyncCursorPage[VectorStoreFile], await api.http.get(FILES))
    assert (page.data, page.has_more) == ([row], False)


async def test_a_file_is_cut_as_it_was_asked(api: Api) -> None:
    await api.store()
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}
    strategy = {"type": "static", "static": static}
    attached = await attach(api, "A heron waits in the reeds. " * 100, chunking_strategy=strategy)
    assert attached["chunking_strategy"] == strategy
    content = await api.json("GET", f"{FILES}/{attached['id']}/content")
    assert len(content["data"]) > 5


async def test_the_content_is_a_page_of_texts(api: Api) -> None:
    await api.store()
    attached = await attach(api, TEXTS["bridge"], "bridge.txt", attributes={"a": 1})
    reply = await api.http.get(f"{FILES}/{attached['id']}/content")
    page = conforms(SyncPage[FileContentResponse], reply)
    assert [(part.type, part.text) for part in page.data] == [("text", TEXTS["bridge"])]
    said = reply.json()
    assert (said["file_id"], said["filename"], said["attributes"]) == (attached["id"], "bridge.txt", {"a": 1})


@pytest.mark.parametrize("attributes", [{"year": 2024}, {}, None])
async def test_attributes_are_replaced_as_a_whole(api: Api, attributes: Any) -> None:
    await api.store()
    attached = await attach(api, attributes={"old": True})
    reply = await api.http.post(f"{FILES}/{attached['id']}", json={"attributes": attributes})
    assert conforms(VectorStoreFile, reply).attributes == (attributes or {})
    assert int(reply.headers["x-ragagent-seq"]) > 0
    assert (await api.json("GET", f"{FILES}/{attached['id']}"))["attributes"] == (attributes or {})


async def test_a_detached_file_leaves_the_store_and_stays_a_file(api: Api) -> None:
    await api.store()
    file = (await attach(api))["id"]
    assert conforms(VectorStoreFileDeleted, await api.http.delete(f"{FILES}/{file}")).id == file
    assert (await api.http.get(f"/v1/files/{file}")).status_code == 200
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", ""), ("POST", "")):
        error = await api.refusal(404, method, f"{FILES}/{file}{path}", json={"attributes": {}})
        assert error["param"] == "file_id"


async def test_a_file_that_cannot_be_read_has_failed_and_says_why(api: Api) -> None:
    await api.store()
    row = conforms(VectorStoreFile, await attach(api, "{", "broken.json"))
    assert row.status == "failed"
    assert row.last_error
    assert row.last_error.code == "invalid_file"


@pytest.mark.parametrize(
    ("code", "said"),
    [("invalid_file", "invalid_file"), ("unsupported_file", "unsupported_file"), ("invalid_value", "server_error")],
)
async def test_a_failure_has_one_of_the_three_codes_that_clients_know(api: Api, code: str, said: str) -> None:
    await api.store()
    file = (await attach(api))["id"]
    row = await api.services.catalog.document(Caller(), "facts", file)
    failed = dataclasses.replace(row, status="failed", error_code=code, error_message="It is so.")
    error = conforms(VectorStoreFile, shown(failed, failed.seq)).last_error
    assert error
    assert (error.code, error.message) == (said, "It is so.")


async def test_a_file_is_completed_when_a_search_can_find_it(api: Api) -> None:
    await api.store()
    file = (await attach(api))["id"]
    row = await api.services.catalog.document(Caller(), "facts", file)
    seen = await api.services.catalog.visible_seq(row.store_id)
    assert shown(row, seen)["status"] == "completed"
    assert shown(dataclasses.replace(row, seq=row.seq + 99), seen)["status"] == "in_progress"


async def test_a_list_is_of_one_status_when_asked(api: Api) -> None:
    await api.store()
    good, bad = (await attach(api))["id"], (await attach(api, "{", "broken.json"))["id"]
    for status, expected in (("completed", [good]), ("failed", [bad]), ("in_progress", []), ("cancelled", [])):
        page = await api.json("GET", FILES, params={"filter": status})
        assert [row["id"] for row in page["data"]] == expected


@pytest.mark.parametrize("status", ["", "done", "x" * 5_000])
async def test_a_status_that_is_none_is_refused(api: Api, status: str) -> None:
    await api.store()
    error = await api.refusal(400, "GET", FILES, params={"filter": status})
    assert error["param"] == "filter"
    assert len(error["message"]) < 200


async def test_a_file_that_is_there_already_stays_as_it_is(api: Api) -> None:
    await api.store()
    attached = await attach(api, attributes={"a": 1})
    again = {"file_id": attached["id"], "attributes": {"a": 2}}
    assert await api.json("POST", FILES, json=again) == attached


async def test_a_file_is_answered_as_attached_though_another_detaches_it_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path, indexing=False, RAGAGENT_INGEST__WAIT_SECONDS="0.5") as api:
        await api.store()
        file = await api.upload()
        replies: list[int] = []

        async def write() -> None:
            replies.append((await api.http.post(FILES, json={"file_id": file})).status_code)

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            with anyio.fail_after(5):
                while not (await api.json("GET", FILES))["data"]:
                    await anyio.lowlevel.checkpoint()
            await api.http.delete(f"{FILES}/{file}")
        assert replies == [202]


# Batches


async def test_a_batch_is_the_clients_own_from_its_beginning_to_its_end(api: Api) -> None:
    store = await api.store()
    files = [await api.upload(text, f"{name}.txt") for name, text in TEXTS.items()]
    files.append(await api.upload("{", "broken.json"))
    reply = await api.http.post(BATCHES, json={"file_ids": files, "attributes": {"a": 1}})
    batch = conforms(VectorStoreFileBatch, reply)
    assert (batch.vector_store_id, batch.file_counts.total) == (store, 4)
    with anyio.fail_after(10):
        while batch.status == "in_progress":
            reply = await api.http.get(f"{BATCHES}/{batch.id}")
            batch = conforms(VectorStoreFileBatch, reply)
    assert int(reply.headers["openai-poll-after-ms"]) > 0
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 3, 1)
    page = conforms(SyncCursorPage[VectorStoreFile], await api.http.get(f"{BATCHES}/{batch.id}/files?order=asc"))
    assert [row.id for row in page.data] == files
    assert all(row.attributes == {"a": 1} for row in page.data)
    failed = await api.json("GET", f"{BATCHES}/{batch.id}/files", params={"filter": "failed"})
    assert [row["id"] for row in failed["data"]] == files[-1:]


async def test_what_a_file_of_a_batch_does_not_say_the_batch_says(api: Api) -> None:
    await api.store()
    own, shared = await api.upload(), await api.upload("B.")
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}
    body = {
        "files": [{"file_id": own, "attributes": {"a": 1}}, {"file_id": shared, "attributes": None}],
        "file_ids": None,
        "attributes": {"a": 2},
        "chunking_strategy": {"type": "static", "static": static},
    }
    conforms(VectorStoreFileBatch, await api.http.post(BATCHES, json=body))
    rows = [await api.json("GET", f"{FILES}/{file}") for file in (own, shared)]
    assert [row["attributes"] for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row["chunking_strategy"]["static"] for row in rows] == [static, static]


async def test_a_cancelled_batch_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, indexing=False) as api:
        await api.store()
        batch = await api.json("POST", BATCHES, json={"file_ids": [await api.upload()]})
        assert (batch["status"], batch["file_counts"]["in_progress"]) == ("in_progress", 1)
        cancelled = conforms(VectorStoreFileBatch, await api.http.post(f"{BATCHES}/{batch['id']}/cancel"))
        assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 1)
        page = conforms(SyncCursorPage[VectorStoreFile], await api.http.get(f"{BATCHES}/{batch['id']}/files"))
        assert page.data[0].status == "cancelled"


@pytest.mark.parametrize("body", [{}, {"file_ids": []}, {"file_ids": ["a"], "files": [{"file_id": "b"}]}])
async def test_a_batch_of_nothing_or_of_two_kinds_is_refused(api: Api, body: dict[str, Any]) -> None:
    await api.store()
    await api.refusal(400, "POST", BATCHES, json=body)


async def test_a_batch_with_an_unknown_file_is_not_made(api: Api) -> None:
    await api.store()
    body = {"file_ids": [await api.upload(), "file-gone"]}
    assert (await api.refusal(404, "POST", BATCHES, json=body))["param"] == "file_id"
    assert (await api.json("GET", FILES))["data"] == []


async def test_an_unknown_batch_is_not_found(api: Api) -> None:
    await api.store()
    for method, path in (("GET", ""), ("GET", "/files"), ("POST", "/cancel")):
        assert (await api.refusal(404, method, f"{BATCHES}/vsfb_gone{path}"))["param"] == "batch_id"


async def test_the_official_client_polls_an_upload_to_its_end(api: Api) -> None:
    store = await api.store()
    client = api.openai
    row = await client.vector_stores.files.upload_and_poll(vector_store_id=store, file=("a.txt", b"A text."))
    assert row.status == "completed"
