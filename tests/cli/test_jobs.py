"""`ragagent jobs` against a fake server: what it shows, what it sends, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from fake_ragagent import FakeRagagent
from ragagent.cli import jobs

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "WATCH_SECONDS", 0.0)


def job(number: int, status: str = "queued", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"job_{number}",
        "object": "ragagent.job",
        "status": status,
        "vector_store_id": "vs_1",
        "file_id": f"file-{number}",
        "filename": f"file{number}.txt",
        "external_id": None,
        "bytes": 2048,
        "chunks": {"done": 3, "total": 12},
        "percent": 25.0,
        "attempts": 1,
        "created_at": 1_700_000_000,
        "since": 1_700_000_000,
        "retry_at": None,
        "last_error": None,
        "worker": None,
        **fields,
    }


def test_jobs_are_listed_page_by_page(ask: Run, fake: FakeRagagent) -> None:
    fake.jobs = [job(number) for number in range(5, 0, -1)]
    lines = ask("jobs", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", "job_5", "job_4", "job_3", "job_2", "job_1"]
    assert "3/12" in lines[1]
    shown = ask("jobs", "ls", "--limit", "2", "--store", "docs", "--status", "failed").stdout
    assert "more than these 2" in shown
    assert fake.requests[-1].query == {"limit": "2", "store": "docs", "status": "failed"}


def test_a_list_in_json_is_one_document(ask: Run, fake: FakeRagagent) -> None:
    fake.jobs = [job(2), job(1)]
    told = json.loads(ask("jobs", "ls", "--json").stdout)
    assert told == {"object": "list", "data": fake.jobs, "has_more": False}


def test_no_job_says_so(ask: Run) -> None:
    assert "nothing has failed" in ask("jobs", "ls").stdout


def test_a_job_is_shown_with_its_trouble_and_who_works_on_it(ask: Run, fake: FakeRagagent) -> None:
    error = {"code": "upstream_error", "message": "The endpoint\x1b[31m is away."}
    worker = {"pid": 77, "heartbeat_age_seconds": 99.0, "is_stuck": True}
    fake.jobs = [job(1, "embedding", last_error=error, worker=worker, retry_at=9_999_999_999)]
    shown = ask("jobs", "show", "job_1").stdout
    assert "77 (stuck)" in shown
    assert "last error: The endpoint[31m is away. (upstream_error)" in shown
    assert "next attempt: in" in shown
    assert json.loads(ask("jobs", "show", "job_1", "--json").stdout) == fake.jobs[0]
    assert "77 (stuck)" in ask("jobs", "ls").stdout


def test_jobs_are_tried_again_and_cancelled(ask: Run, fake: FakeRagagent) -> None:
    fake.jobs = [job(2, "failed"), job(1, "failed")]
    assert "queued" in ask("jobs", "retry", "job_1", "job_2").stdout
    assert [found["status"] for found in fake.jobs] == ["queued", "queued"]
    told = json.loads(ask("jobs", "cancel", "job_1", "--json").stdout)
    assert [found["status"] for found in told["data"]] == ["cancelled"]


def test_an_unknown_job_is_exit_code_1(ask: Run) -> None:
    for verb in ("show", "retry", "cancel", "watch"):
        assert ask("jobs", verb, "job_9").exit_code == 1
    assert ask("jobs", "retry").exit_code == 2


@pytest.mark.parametrize(("last", "code"), [("completed", 0), ("failed", 1), ("cancelled", 1)])
def test_a_job_is_watched_to_its_end(ask: Run, fake: FakeRagagent, last: str, code: int) -> None:
    fake.jobs = [job(1)]
    fake.course = [job(1), job(1, "embedding"), job(1, last)]
    result = ask("jobs", "watch", "job_1", "--json")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["queued", "embedding", last]
    assert result.exit_code == code


def test_a_watched_job_is_a_line_per_change_for_people(ask: Run, fake: FakeRagagent) -> None:
    error = {"code": "invalid_file", "message": "No text."}
    fake.jobs = [job(1)]
    fake.course = [job(1, "embedding"), job(1, "embedding"), job(1, "failed", last_error=error)]
    assert ask("jobs", "watch", "job_1").stdout.splitlines() == [
        "job_1 · file1.txt · embedding · 25 % · 3 of 12 chunks",
        "job_1 · file1.txt · failed · 25 % · 3 of 12 chunks · No text.",
    ]


def test_the_queue_is_watched_until_nothing_waits(ask: Run, fake: FakeRagagent) -> None:
    queue = {"object": "ragagent.queue", "bytes": 2048, "oldest_age_seconds": 3.0, "documents_per_second": 2.5}
    stages = {"queued": 2, "parsing": 1, "embedding": 0, "publishing": 0}
    fake.course = [{**queue, "stages": stages}, {**queue, "stages": dict.fromkeys(stages, 0)}]
    result = ask("jobs", "watch")
    assert result.stdout.splitlines()[0] == "2 queued, 1 parsing · 2.0 KiB · oldest 3 s · 2.5 documents/s"
    assert result.stdout.splitlines()[1].startswith("nothing waits")
    assert result.exit_code == 0
