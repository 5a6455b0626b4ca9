"""A redis-server of the benchmark's own: on 127.0.0.1, without persistence, ended with the block."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START_SECONDS = 10.0


@contextlib.contextmanager
def redis_process() -> Iterator[str]:
    """Yield its URL. Raises SystemExit where there is no redis-server: `make install` brings one."""
    executable = installed()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="redis-bench-") as directory:
        command = [executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
        try:
            _wait(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def installed() -> str:
    """Return the path of a redis-server. Raises SystemExit where there is none."""
    beside = Path(sys.executable).parent / "redis-server"
    executable = str(beside) if beside.exists() else shutil.which("redis-server")
    if executable is None:
        raise SystemExit("There is no redis-server: `make install` brings one, or leave out the legs that need it.")
    return executable


@functools.cache
def with_debug(executable: str) -> Sequence[str]:
    """Return the options with which that server takes DEBUG: from Redis 7 on it must be told to, before it must not."""
    told = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)", told)
    return ("--enable-debug-command", "yes") if version is not None and int(version[1]) >= 7 else ()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    raise SystemExit("The redis-server did not start.")
