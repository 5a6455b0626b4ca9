"""The commands in this process, against a fake server on loopback and a fake supervisor on a Unix socket."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fake_ragagent import FakeRagagent, fake_ragagent
from fake_supervisor import FakeSupervisor
from ragagent.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings, and a directory to be in."""
    for name in os.environ:
        if name.startswith(("RAGAGENT_", "OPENAI_", "REDIS_", "OTEL_", "NO_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let programs under test hear SIGINT: a shell starts what it runs in the background deaf to it, children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    """Listen on the control socket of a data directory, once called with the answers."""
    fake = FakeSupervisor(tmp_path / "data")
    yield fake
    fake.stop()
