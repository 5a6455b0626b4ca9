"""A server for a benchmark: started on a free port with a fresh data directory, or one that runs already."""

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

import httpx

START_SECONDS = 60.0


@contextlib.contextmanager
def server(url: str | None = None, **env: str) -> Iterator[httpx.Client]:
    """Yield a client of the server at `url`, or of one that runs for as long as the block."""
    if url is not None:
        with httpx.Client(base_url=url, timeout=120) as client:
            yield client
        return
    with tempfile.TemporaryDirectory(prefix="ragagent-bench-") as directory, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        settings = {
            "RAGAGENT_DATA__DIR": directory,
            "RAGAGENT_SERVER__BIND": address,
            "RAGAGENT_SERVER__ACCESS_LOG": "false",
            "RAGAGENT_SERVER__LOG_LEVEL": "warning",
            "RAGAGENT_CACHE__ENABLED": "false",  # Every question is computed.
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "ragagent.supervisor"],
            env={**os.environ, **settings, **env},
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=120) as client:
                _wait(client, process)
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")
