"""Files: bytes in, the same bytes out."""

from __future__ import annotations

import pytest
from openai.types import FileDeleted, FileObject

from application import Api, conforms

pytestmark = pytest.mark.anyio


async def test_a_file_goes_its_way_in_the_clients_types(api: Api) -> None:
    data = bytes(range(256))
    form = {"files": {"file": ("dir/ü.bin", data)}, "data": {"purpose": "assistants"}}
    uploaded = conforms(FileObject, await api.json("POST", "/v1/files", **form))
    assert (uploaded.filename, uploaded.bytes) == ("ü.bin", 256)
    conforms(FileObject, await api.json("GET", f"/v1/files/{uploaded.id}"))
    content = await api.http.get(f"/v1/files/{uploaded.id}/content")
    assert content.content == data
    assert content.headers["content-type"] == "application/octet-stream"
    assert content.headers["content-disposition"].startswith("attachment")
    assert conforms(FileDeleted, await api.json("DELETE", f"/v1/files/{uploaded.id}")).deleted
    await api.refusal(404, "GET", f"/v1/files/{uploaded.id}")


async def test_a_list_is_narrowed_by_purpose(api: Api) -> None:
    await api.upload(filename="a.txt")
    other = await api.upload(filename="b.txt", purpose="user_data")
    listed = await api.json("GET", "/v1/files?purpose=user_data")
    assert [item["id"] for item in listed["data"]] == [other]
    assert listed["has_more"] is False


async def test_a_deleted_file_is_gone_from_every_store(api: Api) -> None:
    store, file = await api.store(), await api.upload("The heron waits.")
    await api.json("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file})
    await api.json("DELETE", f"/v1/files/{file}")
    found = await api.json("POST", f"/v1/vector_stores/{store}/search", json={"query": "heron"})
    assert found["data"] == []
