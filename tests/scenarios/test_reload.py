"""A reload of the real server under load: nobody notices, and a bad one changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import servers
from otlp_collector import otlp_collector

CONFIG = '[retrieval]\nresults = 8\n[profile.ragagent]\n[profile.second]\ninstructions = "{}"\n'


class Load:
    """Searches, answers, streams and writes on kept-alive connections until told to stop; counts what failed."""

    def __init__(self, running: servers.Running, store: str) -> None:
        self._running = running
        self._store = store
        self._stop = threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def run(self, number: int) -> None:
        with self._running.http() as client:
            n = 0
            while not self._stop.is_set():
                n += 1
                try:
                    self._one(client, number, n)
                    self.done += 1
                except (httpx.HTTPError, AssertionError) as exc:
                    self.failures.append(repr(exc))

    def _one(self, client: httpx.Client, number: int, n: int) -> None:
        question = {"model": "ragagent", "messages": [{"role": "user", "content": f"What is colour {n % 7}?"}]}
        if number == 0:
            documents = [{"external_id": f"w{n % 20}", "text": f"Write number {n} under way."}]
            reply = client.post("/v1/ragagent/documents", json={"store": self._store, "documents": documents})
            assert reply.status_code in (200, 202), reply.text
        elif number == 1:
            with client.stream("POST", "/v1/chat/completions", json={**question, "stream": True}) as stream:
                assert stream.status_code == 200
                assert [line for line in stream.iter_lines() if line][-1] == "data: [DONE]"
        else:
            body = {"query": f"colour {n % 11}"}
            assert client.post(f"/v1/vector_stores/{self._store}/search", json=body).status_code == 200

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def load(running: servers.Running, store: str) -> Iterator[Load]:
    under = Load(running, store)
    threads = [threading.Thread(target=under.run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield under
    finally:
        under.stop()
        for thread in threads:
            thread.join()


def _prepared(running: servers.Running) -> str:
    store: str = httpx.post(f"{running.url}/v1/vector_stores", json={"name": "colours"}).json()["id"]
    running.upsert(store, **{f"c{n}": f"The colour {n} is shade number {n * 3}." for n in range(30)})
    return store


def test_no_request_fails_through_reloads_and_crashes(tmp_path: Path) -> None:
    with servers.server(tmp_path, CONFIG.format("one")) as running:
        store = _prepared(running)
        before = {worker["pid"] for worker in running.workers()}
        with load(running, store) as under:
            for number in range(3):
                (tmp_path / "ragagent.toml").write_text(CONFIG.format(number))
                reply = running.control("reload")
                assert reply["ok"], reply
                assert "profile" in json.dumps(reply["changes"])
            _reload_by_signal(running)
            time.sleep(0.5)
        assert under.failures == []
        assert under.done > 50
        workers = running.workers()
        assert not before & {worker["pid"] for worker in workers}
        assert {worker["release"] for worker in workers} == {5}


def _reload_by_signal(running: servers.Running) -> None:
    done = running.control("status")["supervisor"]["reloads"]["ok"]
    os.kill(running.pid, signal.SIGHUP)
    servers.wait_until(lambda: running.control("status")["supervisor"]["reloads"]["ok"] > done, 30)


def test_a_bad_reload_changes_nothing_and_says_why(tmp_path: Path) -> None:
    with servers.server(tmp_path, CONFIG.format("one")) as running:
        store = _prepared(running)
        before = {worker["pid"] for worker in running.workers()}
        with load(running, store) as under:
            (tmp_path / "ragagent.toml").write_text("[retrieval]\nreslts = 8\n")
            reply = running.control("reload")
            assert not reply["ok"]
            assert "retrieval.results" in reply["reason"]
            (tmp_path / "ragagent.toml").write_text('[redis]\nurl = "nonsense://"\n')  # refused by the worker itself
            assert not running.control("reload")["ok"]
        assert under.failures == []
        assert {worker["pid"] for worker in running.workers()} == before
        (tmp_path / "ragagent.toml").write_text(CONFIG.format("two"))
        assert running.control("reload")["ok"]


def test_an_unknown_key_ends_the_start_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[server]\nworkrs = 2\n")
    command = [sys.executable, "-m", "ragagent.supervisor", "--config", str(tmp_path / "bad.toml")]
    env = servers.environment(tmp_path / "data", 1, {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "server.workrs" in done.stderr
    assert "server.workers" in done.stderr


def test_one_trace_per_request_and_one_per_reload(tmp_path: Path) -> None:
    with otlp_collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "RAGAGENT_TELEMETRY__METRICS_SECONDS": "1"}
        with servers.server(tmp_path, **env) as running:
            store = _prepared(running)
            question = {"model": "ragagent", "messages": [{"role": "user", "content": "What is the colour 3?"}]}
            httpx.post(f"{running.url}/v1/chat/completions", json=question).raise_for_status()
            assert running.control("reload")["ok"]
            collector.wait_for("ragagent.reload", 20)
            collector.wait_for("http.server.request.duration", 20)
            collector.wait_for("POST /v1/chat/completions", 20)
        chat = collector.named("POST /v1/chat/completions")[0]
        names = {span.name for span in collector.spans if span.trace_id == chat.trace_id}
        assert {"embeddings wordllama-256", "chat extractive", "ragagent.citations.verify"} <= names
        assert any(name.startswith("retrieval") for name in names)
        reload = collector.named("ragagent.reload")[0]
        parts = {span.name for span in collector.spans if span.trace_id == reload.trace_id}
        assert {"ragagent.reload.spawn", "ragagent.reload.ready", "ragagent.reload.switch"} <= parts
        upload = collector.named("POST /v1/ragagent/documents")[0]
        ingest = collector.named("ragagent.ingest")
        assert any(upload.trace_id in str(span.links) for span in ingest)
        assert store
        assert collector.undocumented() == set()
