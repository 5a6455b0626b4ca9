"""A server's data elsewhere: by a backup that was made while it was written to, and by an export and an import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import servers
import xquad
from ragagent.store import files, stores
from ragagent.store.database import Database
from ragagent.types import Caller

RAGAGENT = [sys.executable, "-m", "ragagent.cli.main"]
QUESTIONS = 12  # of each language

Found = list[tuple[str, str, float]]


def ragagent(*arguments: str | Path) -> Any:
    """Run the command with --json and return its document."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAGAGENT_")}
    done = subprocess.run(
        [*RAGAGENT, *map(str, arguments), "--json"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


class Library:
    """XQuAD's paragraphs in two stores of a running server, and the questions that are asked of them."""

    def __init__(self, running: servers.Running, token: str) -> None:
        self.running = running
        self.token = token
        self.client = running.http(headers={"authorization": f"Bearer {token}"})
        self.sets = {language: xquad.load(language) for language in ("en", "zh")}
        self.questions = {
            language: [question.text for question in found.questions[:: len(found.questions) // QUESTIONS]]
            for language, found in self.sets.items()
        }

    def load(self) -> None:
        for language, found in self.sets.items():
            self.client.post("/v1/vector_stores", json={"name": language}).raise_for_status()
            items = list(found.paragraphs.items())
            for start in range(0, len(items), 60):
                self.upsert(language, dict(items[start : start + 60]))

    def upsert(self, store: str, texts: dict[str, str]) -> None:
        documents = [{"external_id": name, "text": text} for name, text in texts.items()]
        reply = self.client.post("/v1/ragagent/documents", json={"store": store, "documents": documents})
        assert reply.raise_for_status().status_code == 200

    def delete(self, store: str, name: str) -> None:
        body = {"store": store, "external_ids": [name]}
        self.client.request("DELETE", "/v1/ragagent/documents", json=body).raise_for_status()

    def answers(self) -> dict[str, list[Found]]:
        return {
            language: [self.search(language, question) for question in questions]
            for language, questions in self.questions.items()
        }

    def search(self, store: str, question: str) -> Found:
        reply = self.client.post(f"/v1/vector_stores/{store}/search", json={"query": question})
        data = reply.raise_for_status().json()["data"]
        return [(item["file_id"], item["content"][0]["text"], item["score"]) for item in data]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with servers.server(tmp_path_factory.mktemp("library"), RAGAGENT_AUTH__REQUIRED="always") as running:
        token = ragagent("keys", "create", "reader", "--data", running.data_dir)["token"]
        library = Library(running, token)
        with library.client:
            library.load()
            yield library


def test_a_restored_backup_answers_the_same_and_has_all_that_was_acknowledged(library: Library, tmp_path: Path) -> None:
    expected = library.answers()
    assert all(found for answers in expected.values() for found in answers)
    library.client.post("/v1/vector_stores", json={"name": "busy"}).raise_for_status()
    for n in range(20):
        library.upsert("busy", {f"early{n}": f"Written before: beforeword{n:03d}."})
    for n in range(10):
        library.delete("busy", f"early{n}")

    stop = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        n = 0
        while not stop.is_set():
            try:
                library.upsert("busy", {f"late{n}": f"Written meanwhile: lateword{n:04d}."})
                if n % 3 == 2:
                    library.delete("busy", f"late{n - 1}")
            except Exception as exc:
                failures.append(exc)
                return
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = ragagent("backup", tmp_path / "b.tar.zst", "--data", library.running.data_dir)
    finally:
        stop.set()
        writer.join()
    assert not failures
    assert (len(made["stores"]), made["left_out"]) == (3, [])
    assert ragagent("restore", "--verify", tmp_path / "b.tar.zst")["seq"] == made["seq"]

    ragagent("restore", tmp_path / "b.tar.zst", "--data", tmp_path / "elsewhere" / "data")
    with servers.server(tmp_path / "elsewhere", RAGAGENT_AUTH__REQUIRED="always") as running:
        assert httpx.get(f"{running.url}/v1/vector_stores").status_code == 401
        other = Library(running, library.token)
        with other.client:
            assert other.answers() == expected
            for n in range(20):
                texts = [text for _, text, _ in other.search("busy", f"beforeword{n:03d}")]
                assert any(f"beforeword{n:03d}" in text for text in texts) == (n >= 10), n
            other.upsert("busy", {"after": "Written after the restore: afterword."})
            assert "afterword" in other.search("busy", "afterword")[0][1]
            assert_consistent(other)


def assert_consistent(library: Library) -> None:
    """Hold that every document of the busy store is found by its own word: index and database are of one mind."""
    (busy,) = [s for s in library.client.get("/v1/vector_stores").json()["data"] if s["name"] == "busy"]
    servers.wait_until(partial(is_settled, library, busy["id"]), 20)
    files = library.client.get(f"/v1/vector_stores/{busy['id']}/files", params={"limit": 100}).json()["data"]
    for file in files[:20]:
        content = library.client.get(f"/v1/files/{file['id']}/content").text
        found = library.search(busy["id"], content.rsplit(maxsplit=1)[-1])
        assert found[0][0] == file["id"], content


def is_settled(library: Library, store_id: str) -> bool:
    counts = library.client.get(f"/v1/vector_stores/{store_id}").json()["file_counts"]
    return bool(counts["in_progress"] == 0)


def test_an_export_taken_in_by_a_running_server_answers_the_same(library: Library, tmp_path: Path) -> None:
    expected = library.answers()
    stores: Sequence[str] = ("--store", "en", "--store", "zh")
    told = ragagent("export", *stores, "--out", tmp_path / "e.jsonl", "--data", library.running.data_dir)
    assert (told["stores"], told["documents"]) == (2, 480)
    with servers.server(tmp_path / "elsewhere") as running:
        taken = ragagent("import", tmp_path / "e.jsonl", "--data", running.data_dir)
        assert (taken["added"], taken["queued"], taken["failed"]) == (480, 0, 0)
        other = Library(running, "anything")
        with other.client:
            for store in other.client.get("/v1/vector_stores").json()["data"]:
                servers.wait_until(partial(is_settled, other, store["id"]), 20)
            assert other.answers() == expected
        assert ragagent("import", tmp_path / "e.jsonl", "--data", running.data_dir)["unchanged"] == 480


def test_a_damaged_database_names_the_command_that_helps(tmp_path: Path) -> None:
    store_id = damaged(tmp_path / "data")
    with servers.server(tmp_path) as running:
        reply = httpx.get(f"{running.url}/v1/vector_stores/{store_id}/files", params={"limit": 100}, timeout=30)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (500, "database_damaged")
        assert "ragagent restore" in error["message"]
        command = [*RAGAGENT, "backup", str(tmp_path / "b"), "--data", str(running.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert "No backup was made. Stop the server" in done.stderr


def damaged(data: Path) -> str:
    """Make a data directory whose pages of documents are not what was written; return its store's id."""
    data.mkdir()
    with closing(Database.open(data / "ragagent.db")) as database, database.write() as tx:
        store = stores.add(
            tx, tenant="default", name="notes", metadata={}, model="m", dimension=4, chunk_tokens=9, overlap_tokens=0
        )
        for n in range(60):
            file = files.add(tx, Caller(), filename=f"{n}", purpose="assistants", data=b"x")
            tx.execute(
                "INSERT INTO documents (store_id, file_id, attributes, status, chunk_tokens, overlap_tokens,"
                " created_at, seq) VALUES (?, ?, ?, 'completed', 9, 0, 0, 1)",
                (store.id, file.id, json.dumps({"note": "word " * 90})),
            )
    content = bytearray((data / "ragagent.db").read_bytes())
    for at in range(0, len(content), 4096):
        if b"word word word" in content[at : at + 4096]:
            content[at : at + 4096] = b"\xa5" * 4096
    (data / "ragagent.db").write_bytes(content)
    return store.id
