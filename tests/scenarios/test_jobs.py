"""The queue under real processes: kills that cost a slice, a slow model that holds nobody up, clients that wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import servers
from fake_openai import FakeOpenAI, fake_openai
from servers import wait_until

CONFIG = """
[embedder]
provider = "openai"
model = "fake-embedder"
dimension = 64
base_url = "{url}"
batch = 16
retries = 0

[ingest]
wait_seconds = 2.0
max_queue_documents = 3
"""
KILLS = 2
SLICE = 32  # what an indexer that has just begun gives its embedder
TEXT = "\n\n".join(f"Paragraph {n} tells of number{n}. " + "Words follow here. " * 90 for n in range(200))


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    with fake_openai(dimension=64) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fake: FakeOpenAI) -> Iterator[servers.Running]:
    config = CONFIG.format(url=fake.base_url)
    with servers.server(tmp_path_factory.mktemp("jobs"), config, RAGAGENT_SERVER__WORKERS="1") as running:
        yield running


def store(server: servers.Running, name: str) -> str:
    return str(httpx.post(f"{server.url}/v1/vector_stores", json={"name": name}).raise_for_status().json()["id"])


def jobs(server: servers.Running, **asked: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/v1/ragagent/jobs", params=asked).json()["data"]
    return found


def upsert(server: servers.Running, name: str, **texts: str) -> httpx.Response:
    documents = [{"external_id": external_id, "text": text} for external_id, text in texts.items()]
    body = {"store": name, "documents": documents}
    return httpx.post(f"{server.url}/v1/ragagent/documents", json=body, timeout=60)


def indexer(server: servers.Running) -> int:
    def running() -> int | None:
        found = server.control("status")["indexer"]
        return found["pid"] if found["state"] == "running" else None

    return wait_until(running, 30) or 0


def test_a_large_document_survives_kills_and_holds_up_neither_others_nor_deletes(
    server: servers.Running, fake: FakeOpenAI
) -> None:
    large, small = store(server, "large"), store(server, "small")
    assert upsert(server, small, old="An old heron.").status_code == 200
    fake.embedding_seconds = 0.3  # for 16 texts
    assert upsert(server, large, book=TEXT).status_code == 202

    def embedded() -> int:
        (job,) = jobs(server, store=large)  # It is not over: then there would be none.
        return int(job["chunks"]["done"])

    for _ in range(KILLS):
        before = embedded()
        wait_until(lambda before=before: embedded() > before, 30)  # type: ignore[misc]
        os.kill(indexer(server), signal.SIGKILL)
    # Beside it another store takes a document in, and lets go of one.
    indexer(server)
    assert wait_until(lambda: upsert(server, small, new="A new heron.").status_code == 200, 30)
    with server.http() as http:
        asked = {"store": small, "external_ids": ["old"]}
        gone = http.request("DELETE", "/v1/ragagent/documents", json=asked)
    assert (gone.status_code, embedded() > 0) == (200, True)
    fake.embedding_seconds = 0.0
    wait_until(lambda: not jobs(server, store=large), 60)
    texts = [text for request in fake.requests for text in request.body["input"]]
    (file,) = httpx.get(f"{server.url}/v1/vector_stores/{large}/files").json()["data"]
    chunks = httpx.get(f"{server.url}/v1/vector_stores/{large}/files/{file['id']}/content").json()["data"]
    assert {chunk["text"] for chunk in chunks} <= set(texts)
    # A kill cost the slice that was under way, which may have grown to twice the first one, and no more.
    assert len(texts) <= len(chunks) + KILLS * 2 * SLICE + 4
    found = httpx.post(f"{server.url}/v1/vector_stores/{large}/search", json={"query": "number199"}).json()["data"]
    assert "number199" in found[0]["content"][0]["text"]


def test_the_official_client_waits_for_room_by_itself(server: servers.Running, fake: FakeOpenAI) -> None:
    name = store(server, "full")
    with server.openai(max_retries=8) as client:
        file = client.files.create(file=("a.txt", b"A text."), purpose="assistants")
        fake.is_away = True
        assert upsert(server, name, a="Text.", b="Text.", c="Text.").status_code == 202
        with pytest.raises(httpx.HTTPStatusError, match="429") as refused:
            upsert(server, name, one_more="Text.").raise_for_status()
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert [job["last_error"]["message"][:18] for job in jobs(server, store=name)][-1:] == ["The model endpoint"]

        # While the queue is full the client asks again; soon after the embedder is back, it is let in.
        threading.Timer(1.0, lambda: setattr(fake, "is_away", False)).start()
        reply = client.vector_stores.files.with_raw_response.create(name, file_id=file.id)
        assert int(reply.http_request.headers["x-stainless-retry-count"]) > 0
    wait_until(lambda: not jobs(server, store=name), 60)
    listed = httpx.get(f"{server.url}/v1/vector_stores/{name}").json()["file_counts"]
    assert (listed["completed"], listed["total"]) == (4, 4)
