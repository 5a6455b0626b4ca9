"""A disk that takes no more: writes are refused with 507, reads go on, and with room again all is well by itself."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

import servers
from ledger import Ledger

BYTES = "48m"
MOUNT = f'mkdir -p "$0" && mount -t tmpfs -o size={BYTES} tmpfs "$0" && exec "$@"'


def _small_disk(directory: Path) -> Sequence[str]:
    """Return the wrapper that gives a server a data directory of its own small disk, gone when the server is."""
    for options in ("-rm", "-m"):  # A user namespace needs no rights; where there is none, root can do without.
        wrapper = ["unshare", options, "sh", "-c", MOUNT, str(directory / "data")]
        if (
            shutil.which("unshare")
            and subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0
        ):
            return wrapper
    pytest.skip("This user may mount nothing, not even in a namespace of its own.")


def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path) -> None:
    env = {"RAGAGENT_INGEST__WAIT_SECONDS": "1"}
    with servers.server(tmp_path, wrapper=_small_disk(tmp_path), **env) as running:
        ledger = Ledger(running, "full", random.Random(1))
        for _ in range(10):
            assert ledger.write()
        ledger.check()
        members = running.members()
        ballast = running.inside / "ballast"
        _fill(ballast)
        acknowledged = [name for n in range(8) if _is_taken(running, ledger.store, name := f"full{n}")]
        assert len(acknowledged) < 8
        refused = _upload(running)
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "insufficient_storage")
        _assert_reads_go_on(running, ledger.store)
        ballast.unlink()
        servers.wait_until(lambda: _is_taken(running, ledger.store, "room"), 30)
        for name in (*acknowledged, "room"):
            servers.wait_until(lambda name=name: _times(running, ledger.store, name) == 1, 30)  # type: ignore[misc]
        with running.http() as client:
            body = {"store": ledger.store, "external_ids": [*acknowledged, "room"]}
            client.request("DELETE", "/v1/ragagent/documents", json=body).raise_for_status()
        for _ in range(10):
            assert ledger.write()
            ledger.check()
        # It was the same processes all along.
        assert {role: running.members()[role] for role in ("worker", "indexer")} == {
            role: members[role] for role in ("worker", "indexer")
        }


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        ballast.with_name("more").write_bytes(bytes(4096))


def _is_taken(running: servers.Running, store: str, name: str) -> bool:
    """Write 1 MB; return whether it was acknowledged. If not, it was refused as what it is."""
    text = f"The record of {name}. " + f"Filler{name} words. " * 40_000
    with running.http() as client:
        body: dict[str, Any] = {"store": store, "documents": [{"external_id": name, "text": text[:1_000_000]}]}
        reply = client.post("/v1/ragagent/documents", json=body)
    assert reply.status_code in (200, 202, 507), reply.text
    if reply.status_code == 507:
        assert reply.json()["error"]["code"] == "insufficient_storage"
        assert reply.headers["x-should-retry"] == "false"
    return reply.status_code != 507


def _upload(running: servers.Running) -> httpx.Response:
    with running.http() as client:
        return client.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("big.txt", b"x" * 1_000_000)})


def _assert_reads_go_on(running: servers.Running, store: str) -> None:
    question = {"model": "ragagent", "messages": [{"role": "user", "content": "What does the record say?"}]}
    for _ in range(20):  # On fresh connections, so that both workers answer.
        with running.http() as client:
            assert client.post(f"/v1/vector_stores/{store}/search", json={"query": "the record says"}).json()["data"]
            assert client.get(f"/v1/vector_stores/{store}/files").status_code == 200
            assert client.post("/v1/chat/completions", json=question).status_code == 200
            assert client.get("/readyz").status_code == 200


def _times(running: servers.Running, store: str, name: str) -> int:
    """Return how many of the store's documents bear that name, and can be found."""
    with running.http() as client:
        rows = client.get(f"/v1/vector_stores/{store}/files", params={"limit": 100}).json()["data"]
    found = {item["filename"] for item in running.search(store, f"filler{name}")}
    return [row["external_id"] for row in rows if row["status"] == "completed"].count(name) if name in found else 0
