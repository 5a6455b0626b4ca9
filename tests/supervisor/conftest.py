"""A whole tree of real processes per test: supervisor, zygote, workers, indexer, on a free port of 127.0.0.1."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

import ragagent
from ragagent.errors import RagagentError
from ragagent.supervisor.control import request

DEADLINE_SECONDS = 20.0
PACKAGE = Path(ragagent.__file__).parent
APPS = Path(__file__).parent / "apps"


class Tree:
    """One supervisor under test. `code` is what the next release of the application will be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "supervisor.log"
        self.config = directory / "ragagent.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self.code(version=1)
        self.configure()

    def code(self, **code: Any) -> None:
        (self.directory / "app.json").write_text(json.dumps(code))

    def configure(self, workers: int = 2, extra: str = "", **server: Any) -> None:
        keys = {"bind": "127.0.0.1:0", "workers": workers, "keep_alive_seconds": 1.0, "graceful_seconds": 5.0, **server}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(["[server]", *lines, extra]))

    def install(self, version: str, broken: str = "", edit: tuple[str, str, str] | None = None) -> None:
        """Put a copy of the whole package where the tree imports it from.

        `broken` is a module to break; `edit` is a module, a text in it, and what to put in its place.
        """
        home = self.directory / f"package-{version}"
        shutil.copytree(PACKAGE, home / "ragagent", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "ragagent" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        if broken:
            (home / "ragagent" / broken).write_text("this is no Python\n")
        if edit is not None:
            module, old, new = edit
            source = (home / "ragagent" / module).read_text()
            assert source.count(old) == 1
            (home / "ragagent" / module).write_text(source.replace(old, new))
        link = self.directory / "next"
        link.symlink_to(home)
        link.rename(self.directory / "package")

    def start(self) -> Tree:
        """Start it and return once it serves."""
        self.spawn()
        self.eventually(lambda: self.is_settled(1))
        return self

    def spawn(self, *wrapper: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start it, under a command that execs what follows it, if one is given."""
        environment = {
            **os.environ,
            "RAGAGENT_DATA__DIR": str(self.data),
            "FLEET_APP": str(self.directory / "app.json"),
            # Of the tree under test, too: where the tests got it from a path, a child must not find another one.
            "PYTHONPATH": os.pathsep.join(map(str, (self.directory / "package", APPS, PACKAGE.parent))),
        }
        modules = ["--worker-module", "fleet_worker", "--indexer-module", "fleet_indexer"]
        python = [sys.executable, "-W", "error"]
        command = [*wrapper, *python, "-m", "ragagent.supervisor", "--config", str(self.config), *modules]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, cwd=self.directory, pass_fds=pass_fds)
        return self.process

    def is_settled(self, release: int) -> bool:
        """Whether exactly `release` runs, in full."""
        status = self.status_or_none()
        if status is None or status["supervisor"]["release"] != release:
            return False
        members = [*status["workers"], status["indexer"]]
        return all(m["release"] == release and m["state"] == "running" for m in members)

    def status_or_none(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.text()
        try:
            return request(self.data, "status", timeout=5)
        except RagagentError:
            return None

    def status(self) -> dict[str, Any]:
        return request(self.data, "status", timeout=5)

    def reload(self) -> dict[str, Any]:
        return request(self.data, "reload", timeout=DEADLINE_SECONDS)

    def connect(self, timeout: float = DEADLINE_SECONDS) -> http.client.HTTPConnection:
        host, _, port = self.status()["bind"].removeprefix("http://").rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def get(self, path: str = "/") -> Any:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def send(self, number: Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def pids(self, role: str = "worker") -> list[int]:
        status = self.status()
        members = status["workers"] if role == "worker" else [status["indexer"]]
        return [member["pid"] for member in members if member["state"] == "running"]

    def zygotes(self) -> list[int]:
        assert self.process is not None
        members = self.member_pids()
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.descendants()}
        return [pid for pid, line in commands.items() if b"supervisor.zygote" in line and pid not in members]

    def member_pids(self) -> list[int]:
        status = self.status()
        return [member["pid"] for member in [*status["workers"], status["indexer"]]]

    def descendants(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self, number: Signals = Signals.SIGTERM) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.send(number)
        return self.process.wait(DEADLINE_SECONDS)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @staticmethod
    def eventually(condition: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
        """Return the first true value of `condition`; fail when there is none in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds:g} s")

    @staticmethod
    def is_alive(pid: int) -> bool:
        """Whether the process runs; a zombie does not."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


class Load(threading.Thread):
    """One keep-alive client after another request, as a connection pool behaves: a closed idle connection is
    replaced, a request that gets no answer has failed."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self.connection = tree.connect(timeout=10)
        self.over = threading.Event()
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def run(self) -> None:
        with closing(self.connection) as connection:
            while not self.over.is_set():
                try:
                    connection.request("GET", "/")
                    self.answers.append(json.loads(connection.getresponse().read()))
                except (OSError, http.client.HTTPException, ValueError) as exc:
                    self.failures.append(repr(exc))
                    connection.close()
                time.sleep(0.002)

    def finish(self) -> None:
        self.over.set()
        self.join(DEADLINE_SECONDS)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    yield tree
    if tree.process is not None and tree.process.poll() is None:
        left = tree.descendants()
        tree.process.kill()
        tree.process.wait(DEADLINE_SECONDS)
        tree.eventually(lambda: not any(map(tree.is_alive, left)))
    assert "A turn of the supervisor's loop failed" not in tree.text()
    assert "The supervisor's telemetry failed" not in tree.text()


@pytest.fixture
def make_load() -> Iterator[Callable[[Tree, int], list[Load]]]:
    running: list[Load] = []

    def make(tree: Tree, clients: int) -> list[Load]:
        loads = [Load(tree) for _ in range(clients)]
        running.extend(loads)
        for load in loads:
            load.start()
        return loads

    yield make
    for load in running:
        load.finish()
