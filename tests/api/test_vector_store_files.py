"""Files in a store, and batches of them."""

from __future__ import annotations

import pytest
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch, VectorStoreFileDeleted

from application import Api, conforms

pytestmark = pytest.mark.anyio


async def test_a_file_in_a_store_goes_its_way_in_the_clients_types(api: Api) -> None:
    store, file = await api.store(), await api.upload("The heron waits.")
    path = f"/v1/vector_stores/{store}/files"
    body = {"file_id": file, "attributes": {"kind": "bird", "year": 2024, "wild": True}}
    attached = conforms(VectorStoreFile, await api.json("POST", path, json=body))
    assert (attached.status, attached.attributes) == ("completed", body["attributes"])
    changed = await api.json("POST", f"{path}/{file}", json={"attributes": {"kind": "wader"}})
    assert conforms(VectorStoreFile, changed).attributes == {"kind": "wader"}
    content = await api.json("GET", f"{path}/{file}/content")
    assert content["data"] == [{"type": "text", "text": "The heron waits."}]
    assert conforms(VectorStoreFileDeleted, await api.json("DELETE", f"{path}/{file}")).deleted
    await api.refusal(404, "GET", f"{path}/{file}")
    await api.json("GET", f"/v1/files/{file}")  # The file itself stays.


async def test_chunking_is_the_files_own(api: Api) -> None:
    store, file = await api.store(), await api.upload("A heron waits in the reeds. " * 100)
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}
    body = {"file_id": file, "chunking_strategy": {"type": "static", "static": static}}
    attached = await api.json("POST", f"/v1/vector_stores/{store}/files", json=body)
    assert attached["chunking_strategy"] == {"type": "static", "static": static}
    content = await api.json("GET", f"/v1/vector_stores/{store}/files/{file}/content")
    assert len(content["data"]) > 5


async def test_a_batch_takes_ids_or_files_with_their_own_attributes(api: Api) -> None:
    store = await api.store()
    files = [await api.upload(f"Heron {n}.", f"{n}.txt") for n in range(2)]
    path = f"/v1/vector_stores/{store}/file_batches"
    body = {"files": [{"file_id": file, "attributes": {"n": n}} for n, file in enumerate(files)]}
    batch = conforms(VectorStoreFileBatch, await api.json("POST", path, json=body))
    assert batch.file_counts.total == 2
    listed = await api.json("GET", f"{path}/{batch.id}/files?order=asc")
    assert [(item["id"], item["attributes"]) for item in listed["data"]] == [
        (file, {"n": n}) for n, file in enumerate(files)
    ]


async def test_a_cancelled_batch_says_so(api: Api) -> None:
    store, file = await api.store(), await api.upload()
    path = f"/v1/vector_stores/{store}/file_batches"
    batch = await api.json("POST", path, json={"file_ids": [file]})
    cancelled = await api.json("POST", f"{path}/{batch['id']}/cancel")
    assert conforms(VectorStoreFileBatch, cancelled).status == "cancelled"


@pytest.mark.parametrize("body", [{}, {"file_ids": []}, {"file_ids": ["a"], "files": [{"file_id": "b"}]}])
async def test_a_batch_of_nothing_or_of_two_kinds_is_refused(api: Api, body: dict[str, object]) -> None:
    await api.refusal(400, "POST", f"/v1/vector_stores/{await api.store()}/file_batches", json=body)
