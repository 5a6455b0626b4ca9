"""A server for a benchmark: on a free port with a fresh or a given data directory, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ragagent.errors import Unavailable
from ragagent.supervisor import control

START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    client: httpx.Client
    port: int
    data_dir: Path

    def status(self) -> dict[str, Any]:
        return control.request(self.data_dir, "status", 10.0)

    def workers(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def indexer(self) -> int:
        return int(self.status()["indexer"]["pid"])


@contextlib.contextmanager
def server(url: str | None = None, **env: str) -> Iterator[httpx.Client]:
    """Yield a client of the server at `url`, or of one that runs for as long as the block."""
    if url is not None:
        with httpx.Client(base_url=url, timeout=120) as client:
            yield client
        return
    with tempfile.TemporaryDirectory(prefix="ragagent-bench-") as directory:
        with running(Path(directory), **env) as started:
            yield started.client


@contextlib.contextmanager
def running(data_dir: Path, **env: str) -> Iterator[Running]:
    """Run a server on `data_dir` for as long as the block. What it logs goes to `data_dir`/log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {
        "RAGAGENT_DATA__DIR": str(data_dir),
        "RAGAGENT_SERVER__BIND": f"127.0.0.1:{port}",
        "RAGAGENT_SERVER__ACCESS_LOG": "false",
        "RAGAGENT_SERVER__LOG_LEVEL": "warning",
        "RAGAGENT_CACHE__ENABLED": "false",  # Every question is computed.
    }
    with (data_dir / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ragagent.supervisor"], env={**os.environ, **settings, **env}, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            started = Running(client, port, data_dir)
            _wait(started, process)
            yield started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def _wait(started: Running, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _is_ready(started):
            return
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{(started.data_dir / 'log').read_text()[-4000:]}")


def _is_ready(started: Running) -> bool:
    with contextlib.suppress(httpx.TransportError, Unavailable, OSError):
        is_answering = started.client.get("/readyz").status_code == 200
        return is_answering and bool(started.status()["indexer"]["state"] == "running")
    return False
