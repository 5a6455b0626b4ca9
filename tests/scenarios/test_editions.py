"""A store's index is rebuilt, and its model changed and changed back, while others search it and the indexer dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import servers
from ragagent.store import editions, stores
from ragagent.store.database import Database

CONFIG = """
[embedders.small]
model = "wordllama-64"
dimension = 64
"""
DOCUMENTS = 400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Running]:
    directory = tmp_path_factory.mktemp("server")
    with servers.server(directory, CONFIG, RAGAGENT_CACHE__RETRIEVAL_SECONDS="0") as running:
        texts = {f"d{n}": text(n) for n in range(DOCUMENTS)}
        for name in ("moving", "rebuilt", "damaged", "other"):
            httpx.post(f"{running.url}/v1/vector_stores", json={"name": name}).raise_for_status()
            some = list(texts.items())[: None if name == "moving" else 20]
            for first in range(0, len(some), 100):
                running.upsert(name, **dict(some[first : first + 100]))
        yield running


def text(n: int) -> str:
    return f"Keyword{n:04d} is the name of lighthouse {n}, which stands {n * 7} metres from harbour {n % 13}."


class Readers:
    """Threads that ask for one document after another, and note whatever is not as it must be."""

    def __init__(self, running: servers.Running, store: str, documents: int) -> None:
        self._running = running
        self._store = store
        self._documents = documents
        self._stop = threading.Event()
        self.asked = 0
        self.wrong: list[str] = []

    def run(self, start: int) -> None:
        with self._running.http() as client:
            n = start
            while not self._stop.is_set():
                n = (n + 7) % self._documents
                # By vectors alone: a question of one model against vectors of another finds something else, or at
                # another angle than that of a text to itself.
                body = {"query": text(n), "max_num_results": 3, "ranking_options": {"dense_weight": 1.0}}
                reply = client.post(f"/v1/vector_stores/{self._store}/search", json=body)
                self.asked += 1
                if reply.status_code != 200:
                    self.wrong.append(f"{reply.status_code}: {reply.text}")
                    continue
                best = reply.json()["data"][0]
                if best["content"][0]["text"] != text(n) or abs(best["scores"]["dense"] - 1.0) > 1e-3:
                    self.wrong.append(f"{n}: {best}")

    @contextmanager
    def reading(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run, args=(start,)) for start in (0, 3)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def command(running: servers.Running, *arguments: str) -> Any:
    """Return what `ragagent index ... --json` prints, run as a process of its own."""
    config = running.data_dir.parent / "ragagent.toml"
    done = subprocess.run(
        [sys.executable, "-m", "ragagent.cli.main", "index", *arguments, "--json", "--config", str(config)],
        env=servers.environment(running.data_dir, 1, {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cursor(running: servers.Running, name: str) -> int:
    with closing(Database.open(running.data_dir / "ragagent.db")) as database, database.read() as tx:
        store = stores.find(tx, "default", name)
        assert store is not None
        edition = editions.find(tx, store.id, "next")
        assert edition is not None
        return edition.cursor


def kill_indexer(running: servers.Running) -> None:
    pid = running.control("status")["indexer"]["pid"]
    os.kill(pid, signal.SIGKILL)
    servers.wait_until(lambda: running.control("status")["indexer"]["pid"] not in (pid, None), 30)


def test_a_store_changes_its_model_and_back_and_no_reader_ever_notices(server: servers.Running) -> None:
    readers = Readers(server, "moving", DOCUMENTS)
    with readers.reading():
        command(server, "reembed", "moving", "--model", "wordllama-64", "--budget", "0.05", "--no-wait")
        half = servers.wait_until(lambda: cursor(server, "moving"), 30)
        kill_indexer(server)
        assert cursor(server, "moving") >= half, "what was made is not made again"
        server.upsert("moving", during="A buoy was laid while the vectors were made.")
        with closing(Database.open(server.data_dir / "ragagent.db")) as database, database.write() as tx:
            tx.execute("UPDATE editions SET budget = 1")  # The point was made.
        command(server, "cutover", "moving")
        server.upsert("moving", after="A buoy was laid after the cutover.")
        kill_indexer(server)
        command(server, "rollback", "moving")
        command(server, "cutover", "moving")
    assert readers.wrong == []
    assert readers.asked > 50
    (listed, kept) = [each for each in command(server, "ls")["data"] if each["name"] == "moving"]
    assert (listed["model"], listed["rows"]) == ("wordllama-64", DOCUMENTS + 2)
    assert (kept["state"], kept["model"]) == ("kept", "wordllama-256")
    with server.http() as client:
        reply = client.post("/v1/vector_stores/moving/search", json={"query": "buoy", "max_num_results": 5})
        assert len([item for item in reply.json()["data"] if "buoy" in item["content"][0]["text"]]) == 2
        asked = {"role": "user", "content": "Where is lighthouse 7?"}
        both = {"model": "ragagent", "messages": [asked], "ragagent": {"stores": ["moving", "other"]}}
        assert client.post("/v1/chat/completions", json=both).status_code == 200


def test_an_index_is_rebuilt_while_it_is_searched(server: servers.Running) -> None:
    readers = Readers(server, "rebuilt", 20)
    with readers.reading():
        for _ in range(2):
            command(server, "rebuild", "rebuilt")
    assert readers.wrong == []
    assert readers.asked > 5


def test_a_damaged_index_is_said_to_be_rebuilt_and_heals_by_itself(server: servers.Running) -> None:
    (searched,) = [each for each in command(server, "ls")["data"] if each["name"] == "damaged"]
    manifest = Path(server.data_dir / "index" / searched["index"] / "MANIFEST")
    manifest.write_bytes(b"nothing")
    body = {"query": text(3)}
    with server.http() as client:
        reply = client.post("/v1/vector_stores/damaged/search", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "index_rebuilding")
        assert int(reply.headers["retry-after"]) >= 1
        assert client.post("/v1/vector_stores/other/search", json=body).status_code == 200
        servers.wait_until(lambda: client.post("/v1/vector_stores/damaged/search", json=body).status_code == 200, 30)
        healed = client.post("/v1/vector_stores/damaged/search", json=body)
        assert healed.json()["data"][0]["content"][0]["text"] == text(3)


def test_a_new_default_model_leaves_old_stores_refused_until_theirs_is_named(server: servers.Running) -> None:
    config = server.data_dir.parent / "ragagent.toml"
    new = '[embedder]\nmodel = "wordllama-128"\ndimension = 128\n'

    def reloaded(text: str, status: int) -> httpx.Response:
        config.write_text(text)
        os.kill(server.pid, signal.SIGHUP)

        def answer() -> httpx.Response | None:
            reply = httpx.post(f"{server.url}/v1/vector_stores/other/search", json={"query": "lighthouse"}, timeout=30)
            return reply if reply.status_code == status else None

        found = servers.wait_until(answer, 60)
        assert found is not None
        return found

    def told() -> str:
        checks: dict[str, str] = httpx.get(f"{server.url}/readyz", timeout=30).json()["checks"]
        return checks["embedders"]

    error = reloaded(new, 409).json()["error"]
    assert error["code"] == "embedder_not_configured"
    assert "holds vectors of 'wordllama-256' (256)" in error["message"]
    servers.wait_until(lambda: told() == "none for 4 stores, 'moving' first", 30)
    servers.wait_until(lambda: "Until then they are refused." in server.log.read_text(), 30)
    named = '[embedders.{0}]\nmodel = "wordllama-{0}"\ndimension = {0}\n'
    assert reloaded(new + named.format(256) + named.format(64), 200).json()["data"]
    servers.wait_until(lambda: told() == "ok", 30)
    servers.wait_until(lambda: len(server.workers()) == 2, 30)
