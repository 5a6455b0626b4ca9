"""Jobs and the queue over HTTP: what a client reads, what it may change, and how it is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import openai
import pytest

from application import Api, running
from ragagent.store import jobs
from ragagent.store.database import Database

pytestmark = pytest.mark.anyio

JOBS = "/v1/ragagent/jobs"
DOCUMENTS = "/v1/ragagent/documents"


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Api]:
    """An application whose indexer never comes."""
    async with running(tmp_path, indexing=False, RAGAGENT_INGEST__WAIT_SECONDS="0") as api:
        yield api


def body(*names: str, store: str = "facts") -> dict[str, Any]:
    return {"store": store, "documents": [{"external_id": name, "text": f"Text {name}."} for name in names]}


async def write(api: Api, *names: str) -> None:
    assert (await api.http.post(DOCUMENTS, json=body(*names))).status_code == 202


async def listed(api: Api, **asked: str | int) -> list[str]:
    return [job["external_id"] for job in (await api.json("GET", JOBS, params=asked))["data"]]


async def test_a_job_says_all_there_is_to_know(idle: Api) -> None:
    store = await idle.store()
    await write(idle, "a")
    (job,) = (await idle.json("GET", JOBS))["data"]
    assert job == {
        "id": job["id"],
        "object": "ragagent.job",
        "status": "queued",
        "vector_store_id": store,
        "file_id": job["file_id"],
        "filename": "a",
        "external_id": "a",
        "bytes": 7,
        "chunks": {"done": 0, "total": 0},
        "percent": 0.0,
        "attempts": 0,
        "created_at": job["created_at"],
        "since": job["since"],
        "retry_at": None,
        "last_error": None,
        "worker": None,
    }
    reply = await idle.http.get(f"{JOBS}/{job['id']}")
    assert (reply.json(), reply.headers["openai-poll-after-ms"]) == (job, "20")


async def test_who_works_on_it_and_what_it_failed_at_is_shown(idle: Api) -> None:
    await idle.store()
    await write(idle, "a")
    database: Database = idle.services.queue._database
    with database.write() as tx:
        jobs.take(tx, jobs.Holder(1, 5), 1, 100)
        tx.execute("UPDATE jobs SET error_code = 'upstream_error', error_message = 'Away.', due_at = 4e9")
    (job,) = (await idle.json("GET", JOBS))["data"]
    assert job["last_error"] == {"code": "upstream_error", "message": "Away."}
    assert job["worker"]["pid"] == 1
    assert job["worker"]["is_stuck"] is True  # Process 1 did not start then.
    assert (job["status"], job["attempts"], job["retry_at"]) == ("parsing", 1, 4_000_000_000)


async def test_the_list_has_pages_and_filters(idle: Api) -> None:
    await idle.store()
    await idle.store("other")
    await write(idle, "a", "b", "c")
    await idle.http.post(DOCUMENTS, json=body("d", store="other"))
    page = await idle.json("GET", JOBS, params={"limit": 2})
    assert ([job["external_id"] for job in page["data"]], page["has_more"]) == (["d", "c"], True)
    assert await listed(idle, limit=2, after=page["last_id"]) == ["b", "a"]
    assert await listed(idle, store="other") == ["d"]
    assert await listed(idle, status="failed") == []
    await idle.json("POST", f"{JOBS}/{page['last_id']}/cancel")
    assert await listed(idle, status="cancelled") == ["c"]
    assert await listed(idle, status="queued", store="facts") == ["b", "a"]


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({"status": "done"}, 400, "status"),
        ({"limit": "0"}, 400, "limit"),
        ({"order": "asc"}, 400, "order"),
        ({"before": "job_1"}, 400, "before"),
        ({"after": "file-1"}, 404, "after"),
        ({"store": "nowhere"}, 404, "store"),
    ],
)
async def test_what_is_asked_wrongly_is_named(idle: Api, asked: dict[str, str], status: int, param: str) -> None:
    assert (await idle.refusal(status, "GET", JOBS, params=asked))["param"] == param


async def test_a_job_is_tried_again_and_not_cancelled_once_it_is_done(api: Api) -> None:
    store = await api.store()
    file = await api.upload("\x00\x01" * 50, "bad.txt")
    failed = await api.json("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file})
    assert failed["status"] == "failed"
    (job,) = (await api.json("GET", JOBS))["data"]
    assert (job["status"], job["last_error"]["code"]) == ("failed", "invalid_file")
    again = await api.json("POST", f"{JOBS}/{job['id']}/retry")
    assert again["id"] == job["id"]
    with anyio.fail_after(20):
        while (await api.json("GET", f"{JOBS}/{job['id']}"))["status"] != "failed":
            await anyio.lowlevel.checkpoint()
    assert (await api.refusal(409, "POST", f"{JOBS}/{job['id']}/cancel"))["code"] == "conflict"
    await api.upsert("facts", good="Good.")
    done = f"{JOBS}/job_{int(job['id'][4:]) + 1}"
    found = await api.json("GET", done)
    assert (found["status"], found["percent"], found["chunks"]) == ("completed", 100.0, {"done": 1, "total": 1})
    for verb in ("cancel", "retry"):
        await api.refusal(409, "POST", f"{done}/{verb}")
    assert await listed(api) == [None]


async def test_an_unknown_job_is_not_found(idle: Api) -> None:
    for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
        error = await idle.refusal(404, method, f"{JOBS}/job_99{path}")
        assert error["param"] == "job_id"


async def test_the_queue_is_told_in_numbers(idle: Api) -> None:
    await idle.store()
    await write(idle, "a", "b")
    told = await idle.json("GET", "/v1/ragagent/queue")
    assert told == {
        "object": "ragagent.queue",
        "documents": 2,
        "bytes": 14,
        "oldest_age_seconds": told["oldest_age_seconds"],
        "stages": {"queued": 2, "parsing": 0, "embedding": 0, "publishing": 0},
        "limits": {"documents": 10_000, "bytes": 1 << 30},
        "documents_per_second": 0.0,
        "bytes_per_second": 0.0,
    }


async def test_a_full_queue_is_429_and_a_store_made_for_it_is_not_left_behind(tmp_path: Path) -> None:
    limits = {"RAGAGENT_INGEST__WAIT_SECONDS": "0", "RAGAGENT_INGEST__MAX_QUEUE_DOCUMENTS": "1"}
    async with running(tmp_path, indexing=False, **limits) as api:
        await api.store()
        await write(api, "a")
        reply = await api.http.post(DOCUMENTS, json=body("b"))
        error = reply.json()["error"]
        assert (reply.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert (reply.headers["retry-after"], "x-should-retry" in reply.headers) == ("5", False)
        file = await api.upload()
        await api.refusal(429, "POST", "/v1/vector_stores", json={"name": "new", "file_ids": [file]})
        assert [store["name"] for store in (await api.json("GET", "/v1/vector_stores"))["data"]] == ["facts"]


async def test_a_full_store_is_429_that_no_client_tries_again(tmp_path: Path) -> None:
    async with running(tmp_path, RAGAGENT_QUOTA__STORE_DOCUMENTS="1") as api:
        store = await api.store(a="Text.")
        file = await api.upload()
        client = api.openai.with_options(max_retries=5)
        with pytest.raises(openai.RateLimitError, match="'facts' may hold 1 documents") as refused:
            await client.vector_stores.files.create(store, file_id=file)
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert refused.value.request.headers["x-stainless-retry-count"] == "0"
        await api.upsert("facts", a="A new version.")
