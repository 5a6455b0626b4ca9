"""A whole server for a test: the real command, on a free port of 127.0.0.1, in a directory of its own, ended by pid."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai

T = TypeVar("T")
START_SECONDS = 60.0
STOP_SECONDS = 45.0


@dataclass
class Running:
    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def openai(self, api_key: str = "anything", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, **options)

    def http(self, **options: Any) -> httpx.Client:
        # Nothing here speaks TLS, and to load the certificates takes longer than most requests.
        return httpx.Client(base_url=self.url, timeout=60, verify=False, **options)

    @property
    def inside(self) -> Path:
        """The data directory as the server sees it: a wrapper may have mounted one of its own."""
        return Path(f"/proc/{self.pid}/root{self.data_dir}")

    def control(self, command: str) -> dict[str, Any]:
        """Ask the supervisor over its control socket."""
        with socket.socket(socket.AF_UNIX) as end, _opened(self.inside) as directory:
            end.settimeout(60)
            end.connect(f"/proc/self/fd/{directory}/control.sock")
            end.sendall(json.dumps({"command": command}).encode() + b"\n")
            reply = end.makefile("rb").readline()
        found: dict[str, Any] = json.loads(reply)
        return found

    def members(self) -> dict[str, list[int]]:
        """Return the pids of the whole tree by role: supervisor, zygote, worker, indexer, parser."""
        found: dict[str, list[int]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self.pid:
                    found.setdefault(_role(entry), []).append(int(entry.name))
        return found

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [w for w in self.control("status")["workers"] if w["state"] == "running"]
        return found

    def new_store(self, name: str) -> str:
        with self.http() as client:
            created: str = client.post("/v1/vector_stores", json={"name": name}).raise_for_status().json()["id"]
        return created

    def counts(self, store: str) -> dict[str, int]:
        """Return how many documents of the store stand in each state."""
        with self.http() as client:
            found: dict[str, int] = client.get(f"/v1/vector_stores/{store}").raise_for_status().json()["file_counts"]
        return found

    def search(self, store: str, query: str, **body: Any) -> list[dict[str, Any]]:
        """Search on a fresh connection, so that any worker may answer."""
        body = {"query": query, "max_num_results": 50, **body}
        with self.http() as client:
            reply = client.post(f"/v1/vector_stores/{store}/search", json=body).raise_for_status()
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    def found(self, store: str, query: str) -> list[str]:
        """Return the texts that a search on a fresh connection finds, best first."""
        return [item["content"][0]["text"] for item in self.search(store, query)]

    def upsert(self, store: str, **texts: str) -> httpx.Response:
        documents = [{"external_id": name, "text": text} for name, text in texts.items()]
        with self.http() as client:
            reply = client.post("/v1/ragagent/documents", json={"store": store, "documents": documents})
        return reply.raise_for_status()


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """Give a descriptor of the directory: a socket's address would be too long with all of its path."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _role(process: Path) -> str:
    if b"ragagent.engine.indexing.parsing.child" in (process / "cmdline").read_bytes():
        return "parser"
    return (process / "comm").read_text().strip().removeprefix("rag-").partition("-")[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data_dir: Path, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that knows nothing of the machine's own REDIS_URL, OPENAI_* or OTEL_*."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAGAGENT_", "OTEL_", "OPENAI_", "REDIS_"))
    }
    return clean | {
        "RAGAGENT_DATA__DIR": str(data_dir),
        "RAGAGENT_SERVER__BIND": f"127.0.0.1:{port}",
        "RAGAGENT_SERVER__WORKERS": "2",
        **extra,
    }


@contextlib.contextmanager
def server(
    directory: Path,
    config: str | None = None,
    wrapper: Sequence[str] = (),
    arguments: Sequence[str] = (),
    **env: str,
) -> Iterator[Running]:
    """Run `python -m ragagent.supervisor` until the block ends; fail if it does not end cleanly by then.

    `wrapper` is a command that execs what follows it. The tree is a process group, so that it can be killed at once.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port, data_dir, log = free_port(), directory / "data", directory / "log"
    command = [*wrapper, sys.executable, "-m", "ragagent.supervisor", *arguments]
    if config is not None:
        (directory / "ragagent.toml").write_text(config)
        command += ["--config", str(directory / "ragagent.toml")]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env=environment(data_dir, port, env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    running = Running(f"http://127.0.0.1:{port}", data_dir, process, log)
    try:
        wait_until(lambda: is_ready(running), START_SECONDS)
        yield running
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-20_000:])
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def is_ready(running: Running) -> bool:
    assert running.process.poll() is None, f"the server exited with {running.process.returncode}"
    with contextlib.suppress(httpx.TransportError, OSError):
        if httpx.get(f"{running.url}/readyz", timeout=5).status_code == 200:
            return bool(running.control("status")["indexer"]["state"] == "running")
    return False


def mappings(pid: int, directory: Path) -> dict[str, int]:
    """Return, per file of the directory that the process maps, the kilobytes that it has for itself alone.

    A file that was deleted and is still mapped counts, under its name with " (deleted)" behind it.
    """
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


def wait_until(condition: Callable[[], T], seconds: float) -> T:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.02)
    return value
