"""Nothing acknowledged is lost, whoever is killed, and whatever one worker wrote every other one reads."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

import servers


def _found(running: servers.Running, store: str, query: str) -> list[str]:
    """Search on a fresh connection, so that any worker may answer."""
    reply = httpx.post(f"{running.url}/v1/vector_stores/{store}/search", json={"query": query, "max_num_results": 50})
    return [item["content"][0]["text"] for item in reply.raise_for_status().json()["data"]]


def _store(running: servers.Running, name: str) -> str:
    reply = httpx.post(f"{running.url}/v1/vector_stores", json={"name": name})
    created: str = reply.raise_for_status().json()["id"]
    return created


def test_a_write_on_one_worker_is_read_on_any_other(server: servers.Running) -> None:
    store = _store(server, "read your writes")
    for n in range(60):
        assert server.upsert(store, **{f"doc{n}": f"Message {n} speaks of keyword{n:04d}."}).status_code == 200
        assert any(f"keyword{n:04d}" in text for text in _found(server, store, f"keyword{n:04d}")), n


def test_a_deleted_document_is_never_seen_again(server: servers.Running) -> None:
    store = _store(server, "no ghosts")
    server.upsert(store, **{f"doc{n}": f"Ghost number {n} is spectre{n:04d}." for n in range(40)})
    for n in range(40):
        body = {"store": store, "external_ids": [f"doc{n}"]}
        httpx.request("DELETE", f"{server.url}/v1/ragagent/documents", json=body).raise_for_status()
        assert not any(f"spectre{n:04d}" in text for text in _found(server, store, f"spectre{n:04d}")), n


def test_an_update_is_seen_whole_by_every_reader(server: servers.Running) -> None:
    """While one text is replaced again and again, each search sees exactly one version of it."""
    store = _store(server, "atomic updates")
    server.upsert(store, rolling="The rolling text, version 0.")
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(len([text for text in _found(server, store, "the rolling text version") if "rolling" in text]))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 40):
        server.upsert(store, rolling=f"The rolling text, version {n}.")
    stop.set()
    reader.join()
    assert seen
    assert set(seen) == {1}, {count: seen.count(count) for count in set(seen)}


def test_workers_share_one_mapped_generation(tmp_path: Path) -> None:
    with servers.server(tmp_path, RAGAGENT_INGEST__MAX_DELTA_ROWS="200") as running:
        store = _store(running, "shared pages")
        for batch in range(5):
            texts = {f"d{batch}-{n}": f"Paragraph {batch}/{n} about topic {n * 7 % 13}." for n in range(100)}
            running.upsert(store, **texts)

        def is_built() -> bool:
            return any(entry["generation"] > 1 for entry in running.control("status")["stores"])

        servers.wait_until(is_built, 20)
        for _ in range(40):  # Both workers open it.
            _found(running, store, "topic 5")
        index = running.data_dir / "index" / store
        mapped = {worker["pid"]: _mappings(worker["pid"], index) for worker in running.workers()}
    assert len(mapped) == 2
    for pid, mappings in mapped.items():
        assert any(name.endswith("vectors.faiss") for name in mappings), (pid, mappings)
        assert all(private == 0 for private in mappings.values()), (pid, mappings)


def _mappings(pid: int, directory: Path) -> dict[str, int]:
    """Return, per file of the directory that the process maps, the kilobytes that it has for itself alone."""
    found: dict[str, int] = {}
    name = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            path = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) > 5 else ""
            name = path if path.startswith(str(directory)) else None
            if name:
                found.setdefault(name, 0)
        elif name and line.startswith(("Private_Dirty:", "Anonymous:")):
            found[name] += int(line.split()[1])
    return found


def test_kill_9_of_any_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with servers.server(tmp_path) as running:
        store = _store(running, "killed")
        acknowledged: list[str] = []
        stop = threading.Event()

        def write() -> None:
            n = 0
            while not stop.is_set():
                word = f"survivor{n:05d}"
                with contextlib.suppress(httpx.HTTPError):
                    if running.upsert(store, **{word: f"This is {word}."}).status_code in (200, 202):
                        acknowledged.append(word)
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        for role in ("indexer", "worker", "indexer", "worker", "indexer"):
            time.sleep(0.7)
            status = running.control("status")
            victim = status["indexer"] if role == "indexer" else status["workers"][0]
            if victim.get("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim["pid"], signal.SIGKILL)
        time.sleep(0.5)
        stop.set()
        writer.join()
        servers.wait_until(lambda: servers.is_ready(running), 30)
        _assert_each_is_there_once(running, store, acknowledged)


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(3000)])])
def test_kill_9_of_the_whole_tree_loses_nothing_acknowledged(tmp_path: Path, rounds: int) -> None:
    chance = random.Random(rounds)
    acknowledged: list[str] = []
    store = ""
    for round_ in range(rounds):
        with contextlib.suppress(httpx.HTTPError), servers.server(tmp_path) as running:
            store = store or _store(running, "killed")
            _assert_each_is_there_once(running, store, acknowledged[-100:])
            killer = threading.Timer(chance.uniform(0.3, 1.2), os.kill, (running.pid, signal.SIGKILL))
            killer.start()
            for n in range(10_000):
                word = f"phoenix{round_}x{n:05d}"
                if running.upsert(store, **{word: f"This is {word}."}).status_code in (200, 202):
                    acknowledged.append(word)
    assert len(acknowledged) > 5 * rounds
    with servers.server(tmp_path) as running:
        _assert_each_is_there_once(running, store, acknowledged)


def _assert_each_is_there_once(running: servers.Running, store: str, words: list[str]) -> None:
    def all_ingested() -> bool:
        counts = httpx.get(f"{running.url}/v1/vector_stores/{store}").json()["file_counts"]
        return bool(counts["in_progress"] == 0)

    servers.wait_until(all_ingested, 30)
    for word in words:
        assert _found(running, store, word)[:1] == [f"This is {word}."], word
        assert len([text for text in _found(running, store, word) if word in text]) == 1, word
