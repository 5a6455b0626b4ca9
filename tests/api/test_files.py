"""Uploads: what comes back is what was sent, and nothing that a browser would run."""

from __future__ import annotations

from typing import Any

import pytest
from openai.pagination import SyncCursorPage
from openai.types import FileDeleted, FileObject

from application import Api, conforms

pytestmark = pytest.mark.anyio

TEXT = ("a.txt", b"A text.")
PURPOSE = {"purpose": "assistants"}


async def test_an_upload_is_a_file_object_and_stays_one(api: Api) -> None:
    reply = await api.http.post("/v1/files", files={"file": TEXT}, data=PURPOSE)
    created = conforms(FileObject, reply)
    assert (created.filename, created.bytes, created.status) == ("a.txt", len(TEXT[1]), "processed")
    assert (await api.http.get(f"/v1/files/{created.id}")).json() == reply.json()
    page = conforms(SyncCursorPage[FileObject], await api.http.get("/v1/files"))
    assert page.data == [created]
    assert page.has_more is False


async def test_a_list_is_of_one_purpose_when_asked(api: Api) -> None:
    await api.upload(purpose="vision")
    mine = await api.upload(purpose="user_data")
    page = await api.json("GET", "/v1/files", params={"purpose": "user_data"})
    assert [row["id"] for row in page["data"]] == [mine]


@pytest.mark.parametrize("name", ["a.html", "报告 2024.txt", 'quo"te.txt', "semi;colon.txt", "per%cent.txt"])
async def test_the_content_comes_back_as_bytes_to_be_saved(api: Api, name: str) -> None:
    data = b"<script>alert(1)</script>" + bytes(range(256))
    uploaded = await api.json("POST", "/v1/files", files={"file": (name, data)}, data=PURPOSE)
    reply = await api.http.get(f"/v1/files/{uploaded['id']}/content")
    assert reply.content == data
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"].startswith("attachment; ")
    assert reply.headers["content-disposition"].isascii()
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert (await api.openai.files.content(uploaded["id"])).content == data


async def test_a_deleted_file_is_gone(api: Api) -> None:
    file = await api.upload()
    assert conforms(FileDeleted, await api.http.delete(f"/v1/files/{file}")).deleted
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert file in (await api.refusal(404, method, f"/v1/files/{file}{path}"))["message"]


async def test_a_deleted_file_is_gone_from_every_store(api: Api) -> None:
    store, file = await api.store(), await api.upload("The heron waits.")
    await api.json("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file})
    await api.json("DELETE", f"/v1/files/{file}")
    found = await api.json("POST", f"/v1/vector_stores/{store}/search", json={"query": "heron"})
    assert found["data"] == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\etc\\passwd", "/etc/passwd", "  passwd "])
async def test_only_the_last_part_of_a_name_is_kept(api: Api, name: str) -> None:
    uploaded = await api.json("POST", "/v1/files", files={"file": (name, b"x")}, data=PURPOSE)
    assert uploaded["filename"] == "passwd"


@pytest.mark.parametrize("name", ["x" * 513, "a/", "zero\u200bwidth.txt", "\u202etxt.exe"])
async def test_a_name_that_cannot_be_shown_is_refused(api: Api, name: str) -> None:
    error = await api.refusal(400, "POST", "/v1/files", files={"file": (name, b"x")}, data=PURPOSE)
    assert error["param"] == "file"
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"data": PURPOSE}, "file"),
        ({"files": {"file": TEXT}}, "purpose"),
        ({"files": {"file": TEXT}, "data": {"purpose": " "}}, "purpose"),
        ({"files": {"file": TEXT}, "data": {"purpose": "p" * 5_000}}, "purpose"),
        ({"files": {"file": TEXT, "purpose": TEXT}}, None),
        ({"files": {"file": ("a.txt", b"")}, "data": PURPOSE}, "file"),
        ({"files": {"other": TEXT}, "data": PURPOSE}, "file"),
        ({"files": {"file": TEXT}, "data": {**PURPOSE, "expires_after[anchor]": "created_at"}}, "expires_after"),
        ({"files": {"file": TEXT}, "data": {f"field{n}": "x" for n in range(21)}}, None),
        ({"json": {"file": "x"}}, "file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, None),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, None),
    ],
)
async def test_an_upload_without_its_parts_is_refused_by_name(
    api: Api, given: dict[str, Any], param: str | None
) -> None:
    error = await api.refusal(400, "POST", "/v1/files", **given)
    assert error["param"] == param
    assert len(error["message"]) < 300


async def test_a_media_type_is_read_without_regard_to_case(api: Api) -> None:
    request = api.http.build_request("POST", "/v1/files", files={"file": TEXT}, data=PURPOSE)
    kind = request.headers["content-type"]
    request.headers["content-type"] = kind.replace("multipart/form-data", "Multipart/Form-Data")
    assert (await api.http.send(request)).status_code == 200


@pytest.mark.parametrize(("count", "stored"), [("0", 2), ("1", 1)])
async def test_an_upload_that_its_client_repeats_is_stored_once(api: Api, count: str, stored: int) -> None:
    for retry in ("0", count):
        headers = {"x-stainless-retry-count": retry}
        await api.http.post("/v1/files", files={"file": TEXT}, data=PURPOSE, headers=headers)
    assert len((await api.json("GET", "/v1/files"))["data"]) == stored


@pytest.mark.parametrize(("limit", "status"), [("10000", 200), ("10001", 400)])
async def test_a_list_may_be_as_long_as_openais(api: Api, limit: str, status: int) -> None:
    assert (await api.http.get("/v1/files", params={"limit": limit})).status_code == status
