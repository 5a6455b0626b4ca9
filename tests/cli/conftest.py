"""The commands in this process, against a fake server on loopback and a fake supervisor on a Unix socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fake_ragagent import FakeRagagent, fake_ragagent
from ragagent.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings, and a directory to be in."""
    for name in os.environ:
        if name.startswith(("RAGAGENT_", "OPENAI_", "REDIS_", "OTEL_", "NO_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake() -> Iterator[FakeRagagent]:
    with fake_ragagent() as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line. `stdin` is its input, `color` keeps the colours, what else is named is its environment."""

    def run(*arguments: str | Path, stdin: bytes | None = None, color: bool = False, **env: str) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, color=color, env=env)

    return run


@pytest.fixture
def ask(run: Run, fake: FakeRagagent) -> Run:
    """Run a command line against the fake server."""

    def ask(*arguments: str | Path, **rest: Any) -> Result:
        return run(*arguments, RAGAGENT_URL=fake.url, **rest)

    return ask


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Path]]:
    """Listen on the control socket of a data directory, and answer each request with the given replies."""
    directory = tmp_path / "data"
    directory.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "control.sock"))
    listener.listen()
    threads: list[threading.Thread] = []

    def answer(replies: dict[str, Any]) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            command = json.loads(lines.readline())["command"]
            if command in replies:
                connection.sendall(json.dumps(replies[command]).encode() + b"\n")

    def start(replies: dict[str, Any]) -> Path:
        threads.append(threading.Thread(target=answer, args=(replies,)))
        threads[-1].start()
        return directory

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()
