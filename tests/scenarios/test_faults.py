"""The real server, with something broken beneath it: a reload is refused or serves, and never shakes what runs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import httpx

import servers
from otlp_collector import otlp_collector

TEXTS = {f"c{n}": f"The colour {n} is shade number {n * 3}." for n in range(30)}

# What a process that leaves may wait for its collector; OpenTelemetry by itself waits for 10 s and more.
COLLECTOR_SECONDS = 2.0
SLOW_MACHINE_SECONDS = 5.0


def _prepared(running: servers.Running) -> str:
    store: str = httpx.post(f"{running.url}/v1/vector_stores", json={"name": "colours"}).json()["id"]
    running.upsert(store, **TEXTS)
    return store


def _search(running: servers.Running, store: str) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/vector_stores/{store}/search", json={"query": "colour 7"}, timeout=30)


def test_a_reload_over_a_damaged_index_never_becomes_a_crash_loop(tmp_path: Path) -> None:
    with servers.server(tmp_path) as running:
        store = _prepared(running)
        for damage in (_put_a_file_in_its_place, _forge_the_manifest, _lose_the_generation):
            servers.wait_until(lambda: _finds(running, store), 60)
            damage(_index(running, store))
            reply = running.control("reload")
            assert reply["ok"] or reply["reason"]
            servers.wait_until(lambda: servers.is_ready(running), 30)
        servers.wait_until(lambda: _finds(running, store), 60)
        workers = running.control("status")["workers"]
        assert [(worker["state"], worker["restarts"]) for worker in workers] == [("running", 0)] * 2


def _index(running: servers.Running, store: str) -> Path:
    """Return the directory that is searched: after a rebuild it has another number."""
    found = [path for path in (running.data_dir / "index").glob(f"{store}*") if path.is_dir()]
    return max(found, key=lambda path: int(path.name.removeprefix(store).removeprefix("-") or 0))


def _put_a_file_in_its_place(index: Path) -> None:
    shutil.rmtree(index)
    index.write_text("not an index")


def _forge_the_manifest(index: Path) -> None:
    (index / "MANIFEST").write_bytes(b"\xff" * 64)


def _lose_the_generation(index: Path) -> None:
    for generation in index.glob("0*"):
        shutil.rmtree(generation)


def _finds(running: servers.Running, store: str) -> bool:
    reply = _search(running, store)
    return reply.status_code == 200 and bool(reply.json()["data"])


def test_a_collector_that_hangs_slows_neither_reload_nor_stop(tmp_path: Path) -> None:
    with otlp_collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "RAGAGENT_TELEMETRY__METRICS_SECONDS": "1"}
        with servers.server(tmp_path, **env) as running:
            store = _prepared(running)
            usual = _seconds_of_reload(running)
            collector.behave("hang")
            for _ in range(20):
                _search(running, store)
            # Once, not once for each old worker: they tell their collectors at the same time.
            assert _seconds_of_reload(running) < usual + COLLECTOR_SECONDS + SLOW_MACHINE_SECONDS
            begun = time.monotonic()
            assert servers.stop(running.process) == 0
            assert time.monotonic() - begun < COLLECTOR_SECONDS + SLOW_MACHINE_SECONDS


def _seconds_of_reload(running: servers.Running) -> float:
    begun = time.monotonic()
    assert running.control("reload")["ok"]
    return time.monotonic() - begun
