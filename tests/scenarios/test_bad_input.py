"""Bad input: a clear 4xx in OpenAI's envelope, or a failed file that says why. Nothing half-written, no worker lost."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import servers


@pytest.fixture(scope="module")
def http(server: servers.Running) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def store(server: servers.Running, http: httpx.Client) -> str:
    created: str = http.post("/v1/vector_stores", json={"name": "bad input"}).json()["id"]
    documents = [{"external_id": "a", "text": "A known text about bridges.", "attributes": {"year": 2000}}]
    http.post("/v1/ragagent/documents", json={"store": created, "documents": documents}).raise_for_status()
    return created


@pytest.fixture(autouse=True)
def nobody_dies(server: servers.Running) -> Iterator[None]:
    """Whatever a test sends: the same workers serve after it, and the store holds what it held."""
    before = {worker["pid"] for worker in server.workers()}
    yield
    assert {worker["pid"] for worker in server.workers()} == before


def refusal(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    assert reply.headers["x-request-id"]
    return error


def upsert(http: httpx.Client, store: str, text: Any, **more: Any) -> httpx.Response:
    document = {"external_id": "x", "text": text, **more}
    return http.post("/v1/ragagent/documents", json={"store": store, "documents": [document]})


@pytest.mark.parametrize("body", [b"{", b"", b"[1, 2", b"\xff\xfe", b'{"query": "\\ud800"}', b"nul"])
def test_wrong_json(http: httpx.Client, store: str, body: bytes) -> None:
    error = refusal(http.post(f"/v1/vector_stores/{store}/search", content=body), 400)
    assert error["code"] == "invalid_json"


def test_deeply_nested_json(http: httpx.Client, store: str) -> None:
    nested: dict[str, Any] = {"type": "eq", "key": "year", "value": 1}
    for _ in range(30):
        nested = {"type": "and", "filters": [nested]}
    refusal(http.post(f"/v1/vector_stores/{store}/search", json={"query": "x", "filters": nested}), 400)
    refusal(http.post(f"/v1/vector_stores/{store}/search", content=b'{"query":' + b"[" * 100_000), 400)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": 7}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x", "max_num_results": 0}, "max_num_results"),
        ({"query": "x", "max_num_results": "many"}, "max_num_results"),
        ({"query": "x", "ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
        ({"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters.type"),
        ({"query": "x", "filters": {"type": "eq", "value": 1}}, "filters.key"),
        ({"query": "x", "filters": {"type": "in", "key": "year", "value": 1}}, "filters"),
        ({"query": "x", "filters": {"type": "and", "filters": []}}, "filters.filters"),
        ({"query": "x\u0000y"}, "query"),
    ],
)
def test_the_error_names_the_field(http: httpx.Client, store: str, body: dict[str, Any], param: str) -> None:
    error = refusal(http.post(f"/v1/vector_stores/{store}/search", json=body), 400)
    assert error["param"] == param, error


def test_a_filter_on_a_key_that_no_document_has(http: httpx.Client, store: str) -> None:
    body = {"query": "x", "filters": {"type": "eq", "key": "yaer", "value": 2000}}
    error = refusal(http.post(f"/v1/vector_stores/{store}/search", json=body), 400)
    assert error["code"] == "unknown_attribute"
    assert "'yaer'" in error["message"]
    assert "'year'" in error["message"]


def test_a_query_of_100000_characters(http: httpx.Client, store: str) -> None:
    error = refusal(http.post(f"/v1/vector_stores/{store}/search", json={"query": "long " * 20_000}), 400)
    assert "100000" in error["message"]
    chat = {"model": "ragagent", "messages": [{"role": "user", "content": "long " * 20_000}]}
    refusal(http.post("/v1/chat/completions", json=chat), 400)
    response = {"model": "ragagent", "input": "long " * 20_000, "store": False}
    assert refusal(http.post("/v1/responses", json=response), 400)["param"] == "input"


def test_unknown_store_and_file(http: httpx.Client, store: str) -> None:
    assert "vs_gone" in refusal(http.get("/v1/vector_stores/vs_gone"), 404)["message"]
    assert "file-gone" in refusal(http.get("/v1/files/file-gone"), 404)["message"]
    refusal(http.post(f"/v1/vector_stores/{store}/files", json={"file_id": "file-gone"}), 404)
    refusal(http.post("/v1/ragagent/documents", json={"store": "nowhere", "documents": [_text()]}), 404)
    refusal(http.get("/v1/no/such/path"), 404)
    assert refusal(http.put("/v1/files", content=b""), 405)["code"] == "method_not_allowed"


def _text() -> dict[str, str]:
    return {"external_id": "x", "text": "text"}


@pytest.mark.parametrize("text", ["", "   \n\t ", "nul \u0000 inside", 7, None, ["a"]])
def test_texts_that_are_none(http: httpx.Client, store: str, text: Any) -> None:
    error = refusal(upsert(http, store, text), 400)
    assert error["param"] == "documents.0.text"


def test_a_lone_surrogate(http: httpx.Client, store: str) -> None:
    raw = b'{"store": "%s", "documents": [{"external_id": "x", "text": "half \\ud83d of it"}]}' % store.encode()
    refusal(http.post("/v1/ragagent/documents", content=raw), 400)


def test_a_text_of_30_megabytes(http: httpx.Client, store: str) -> None:
    error = refusal(upsert(http, store, "large text " * 2_900_000), 413)
    assert error["code"] == "too_large"
    upload = {"file": ("large.txt", b"large text " * 2_900_000)}
    refusal(http.post("/v1/files", files=upload, data={"purpose": "assistants"}), 413)


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": {"nested": 1}},
        {"a": None},
        {"a": "x" * 513},
        {"k" * 65: 1},
        {'quo"te': 1},
        {str(n): n for n in range(17)},
        {"a": [1]},
    ],
)
def test_attributes_beyond_the_contract(http: httpx.Client, store: str, attributes: Any) -> None:
    error = refusal(upsert(http, store, "text", attributes=attributes), 400)
    assert error["param"].startswith("documents.0.attributes")


def test_one_bad_document_leaves_nothing_of_its_request(http: httpx.Client, store: str) -> None:
    documents = [{"external_id": "good", "text": "An unmistakable aardvark."}, {"external_id": "bad", "text": ""}]
    refusal(http.post("/v1/ragagent/documents", json={"store": store, "documents": documents}), 400)
    found = http.post(f"/v1/vector_stores/{store}/search", json={"query": "aardvark"}).json()["data"]
    assert not any("aardvark" in item["content"][0]["text"] for item in found)


def _bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", b"<Types/>")
        archive.writestr("word/document.xml", b"\0" * 300_000_000)
    return out.getvalue()


def _encrypted_pdf() -> bytes:
    from pypdf import PdfWriter  # noqa: PLC0415  (only this test needs it)

    writer, out = PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("filename", "data", "reason"),
    [
        ("binary.txt", bytes(range(256)) * 40, "binary"),
        ("locked.pdf", _encrypted_pdf(), "encrypted"),
        ("bomb.docx", _bomb(), "unpack"),
        ("not.pdf", b"no pdf at all", ""),
        ("not.docx", b"PK\x03\x04 no zip", ""),
        ("broken.json", b'{"a": ', ""),
        ("broken.jsonl", b'{"a": 1}\n{"a": \n', "2"),
        ("blank.txt", b"   \n  ", "no text"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(64), ""),
    ],
)
def test_a_file_that_cannot_be_read_fails_and_says_why(
    http: httpx.Client, store: str, filename: str, data: bytes, reason: str
) -> None:
    upload = http.post("/v1/files", files={"file": (filename, data)}, data={"purpose": "assistants"})
    file_id = upload.raise_for_status().json()["id"]
    reply = http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id}).json()
    assert reply["status"] == "failed", reply
    assert reply["last_error"]["code"] in ("invalid_file", "unsupported_file")
    assert reason in reply["last_error"]["message"].lower(), reply


def test_an_empty_file_is_refused_at_once(http: httpx.Client) -> None:
    reply = http.post("/v1/files", files={"file": ("empty.txt", b"")}, data={"purpose": "assistants"})
    assert refusal(reply, 400)["param"] == "file"


@pytest.mark.parametrize("given", [{"data": {"purpose": "assistants"}}, {"content": b"raw"}])
def test_an_upload_without_its_parts(http: httpx.Client, given: dict[str, Any]) -> None:
    assert refusal(http.post("/v1/files", **given), 400)["param"] == "file"


def test_hostile_file_names_are_cut_or_refused(http: httpx.Client) -> None:
    def upload(name: str) -> httpx.Response:
        return http.post("/v1/files", files={"file": (name, b"text")}, data={"purpose": "assistants"})

    assert upload("../../etc/passwd").json()["filename"] == "passwd"
    refusal(upload("x" * 600), 400)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "model"),
        ({"model": "ragagent", "messages": []}, "messages"),
        ({"model": "ragagent", "messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"model": "ragagent", "messages": [{"role": "pope", "content": "x"}]}, "messages.0.role"),
        ({"model": "ragagent", "messages": [{"role": "user", "content": "x"}], "n": 2}, "n"),
        ({"model": "ragagent", "messages": [{"role": "user", "content": "x"}], "temperature": 9}, "temperature"),
        (
            {
                "model": "ragagent",
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            },
            "messages",
        ),
    ],
)
def test_chat_requests_that_cannot_be_answered(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    assert refusal(http.post("/v1/chat/completions", json=body), 400)["param"] == param


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1000", "order=up"])
def test_list_parameters(http: httpx.Client, query: str) -> None:
    refusal(http.get(f"/v1/vector_stores?{query}"), 400)
