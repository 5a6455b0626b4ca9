"""One file at a time through a shelf; `test_load.py` has many, `test_ingest.py` the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_ragagent import FakeRagagent, Status
from ragagent.cli import shelf as module
from ragagent.cli.client import Client
from ragagent.cli.selection import Source
from ragagent.cli.shelf import Outcome, Shelf

Put = Callable[..., Outcome]


@pytest.fixture
def client(fake: FakeRagagent) -> Iterator[Client]:
    with Client(fake.url) as client:
        client.post("/v1/vector_stores", {"name": "default"})
        yield client


@pytest.fixture
def put(client: Client, fake: FakeRagagent, tmp_path: Path) -> Put:
    """Ingest `content` as the file `docs/a.md`, in a run of its own, with these attributes."""

    def put(content: bytes, **attributes: Any) -> Outcome:
        path = tmp_path / "a.md"
        path.write_bytes(content)
        shelf = Shelf(client, fake.store().id, attributes)
        shelf.look({"docs/a.md"})
        sent = shelf.send(Source(path, "docs/a.md"))
        if isinstance(sent, Outcome):
            return sent
        batches, failed = shelf.attach([sent])
        return failed[0] if failed else next(shelf.settle(batches[0]))

    return put


def attributes(fake: FakeRagagent) -> dict[str, Any]:
    (file,) = fake.store().files.values()
    return {key: value for key, value in file["attributes"].items() if key != "sha256"}


def test_a_new_file_is_added(put: Put, fake: FakeRagagent) -> None:
    assert put(b"one") == Outcome("docs/a.md", "added")
    assert fake.names() == {"docs/a.md": b"one"}


def test_the_same_content_is_not_sent_again(put: Put, fake: FakeRagagent) -> None:
    put(b"one")
    assert put(b"one") == Outcome("docs/a.md", "unchanged")
    assert fake.asked("POST", "/v1/files") == 1


def test_changed_content_replaces_the_older_version_and_its_bytes(put: Put, fake: FakeRagagent) -> None:
    put(b"one")
    assert put(b"two") == Outcome("docs/a.md", "replaced")
    assert fake.names() == {"docs/a.md": b"two"}
    assert [upload.data for upload in fake.uploads.values()] == [b"two"]


def test_the_older_version_is_deleted_only_after_the_newer_one_is_completed(put: Put, fake: FakeRagagent) -> None:
    put(b"one")
    fake.requests.clear()
    fake.slow = 3
    put(b"two")
    steps = [asked.method for asked in fake.requests if asked.path.startswith("/v1/files") or "batch" in asked.path]
    assert steps[-1] == "DELETE"
    assert steps.count("DELETE") == 1


def test_new_attributes_are_laid_over_the_old_without_sending_the_file(put: Put, fake: FakeRagagent) -> None:
    put(b"one", team="a", year=2024)
    assert put(b"one", team="b") == Outcome("docs/a.md", "updated")
    assert put(b"one") == Outcome("docs/a.md", "unchanged")
    assert attributes(fake) == {"team": "b", "year": 2024, "path": "docs/a.md"}
    assert fake.asked("POST", "/v1/files") == 1


def test_a_replacement_inherits_attributes(put: Put, fake: FakeRagagent) -> None:
    put(b"one", team="a", year=2024)
    put(b"two", year=2025)
    assert attributes(fake) == {"team": "a", "year": 2025, "path": "docs/a.md"}


def test_a_failed_replacement_leaves_the_last_good_version_in_service(put: Put, fake: FakeRagagent) -> None:
    put(b"one")
    assert put(b"BAD 1") == Outcome("docs/a.md", "failed", "It is bad.")
    assert put(b"BAD 2").result == "failed"
    assert fake.names() == {"docs/a.md": b"one"}
    # Of the failures, the newest alone is kept for the operator to see.
    assert sorted(upload.data for upload in fake.uploads.values()) == [b"BAD 2", b"one"]


def test_what_failed_is_tried_again_and_cleared_when_it_succeeds(put: Put, fake: FakeRagagent) -> None:
    put(b"BAD")
    put(b"BAD")
    assert fake.asked("POST", "/v1/files") == 2
    assert put(b"good") == Outcome("docs/a.md", "added")
    assert [upload.data for upload in fake.uploads.values()] == [b"good"]


def test_a_version_that_an_interrupted_run_left_is_cleared(put: Put, client: Client, fake: FakeRagagent) -> None:
    put(b"one")
    (old,) = fake.store().files.values()
    put(b"two")
    fake.uploads[old["id"]] = next(iter(fake.uploads.values()))
    fake.store().files = {old["id"]: old, **fake.store().files}  # As if the run had died before it deleted this.
    assert put(b"two") == Outcome("docs/a.md", "unchanged")
    assert len(fake.store().files) == 1


def test_content_that_is_still_on_its_way_is_waited_for(put: Put, fake: FakeRagagent) -> None:
    put(b"one")
    (file,) = fake.store().files.values()
    file["looks"] = 3
    assert put(b"one") == Outcome("docs/a.md", "unchanged")
    assert fake.asked("GET", "/v1/vector_stores/[^/]+/files/[^/]+") == 3


def test_waiting_ends_when_the_indexer_does_not_move(
    put: Put, fake: FakeRagagent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    put(b"one")
    (file,) = fake.store().files.values()
    file["looks"] = 1_000_000
    outcome = put(b"one")
    assert outcome.result == "failed"
    assert "has not moved" in (outcome.reason or "")


def test_an_upload_that_the_store_refuses_is_deleted_again(client: Client, fake: FakeRagagent, tmp_path: Path) -> None:
    path, name = tmp_path / "a.md", f"docs/{'x' * 600}/a.md"
    path.write_bytes(b"one")
    shelf = Shelf(client, fake.store().id, {})
    sent = shelf.send(Source(path, name))
    assert not isinstance(sent, Outcome)
    assert shelf.attach([sent]) == ([], [Outcome(name, "failed", "'attributes': a value is too long.")])
    assert fake.uploads == {}


def test_a_full_queue_is_waited_for(put: Put, fake: FakeRagagent) -> None:
    full = Status(429, "The queue is full.", module.FULL, retry_after=0)
    fake.trouble(None, None, *[full] * 9)  # The upload is taken. The client itself would give up after four.
    assert put(b"one").result == "added"


def test_a_queue_that_stays_full_fails_the_batch_as_a_whole(
    client: Client, fake: FakeRagagent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", -1.0)
    shelf = Shelf(client, fake.store().id, {})
    uploads = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        upload = shelf.send(Source(tmp_path / name, name))
        assert isinstance(upload, module.Upload)
        uploads.append(upload)
    fake.trouble(*[Status(429, "The queue is full.", module.FULL, retry_after=0)] * 4)
    batches, failed = shelf.attach(uploads)
    assert batches == []
    assert [(outcome.name, outcome.result, outcome.reason) for outcome in failed] == [
        ("a", "failed", "The queue is full."),
        ("b", "failed", "The queue is full."),
    ]
    assert fake.uploads == {}


def test_a_file_that_cannot_be_read_fails_alone(client: Client, fake: FakeRagagent, tmp_path: Path) -> None:
    shelf = Shelf(client, fake.store().id, {})
    outcome = shelf.send(Source(tmp_path / "gone.md", "docs/gone.md"))
    assert outcome == Outcome("docs/gone.md", "failed", "No such file or directory")


def test_an_upload_that_the_server_refuses_fails_with_its_reason(
    client: Client, fake: FakeRagagent, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_bytes(b"")
    fake.trouble(Status(400, "File 'a.md' is empty."))
    outcome = Shelf(client, fake.store().id, {}).send(Source(tmp_path / "a.md", "docs/a.md"))
    assert outcome == Outcome("docs/a.md", "failed", "File 'a.md' is empty.")


def test_a_text_is_stored_under_its_id(client: Client, fake: FakeRagagent) -> None:
    shelf = Shelf(client, fake.store().id, {"team": "a"})
    assert shelf.put_text("note", "hello") == Outcome("note", "stored")
    assert shelf.put_text("note", "BAD") == Outcome("note", "failed", "It is bad.")
    (stored, _) = fake.store().files.values()
    assert (stored["external_id"], stored["attributes"]) == ("note", {"team": "a"})
