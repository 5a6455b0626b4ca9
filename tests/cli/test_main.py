from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from ragagent import __version__
from ragagent.cli.main import cli

Run = Callable[..., Result]

HEAVY = ("faiss", "numpy", "tantivy", "starlette", "pydantic", "hypercorn", "opentelemetry", "redis")


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"ragagent {__version__}\n"


def test_help_names_every_command_in_a_whole_sentence(run: Run) -> None:
    told = run("--help").stdout
    names = cli.list_commands(click.Context(cli))
    assert set(names) == {
        *("serve", "status", "top", "logs", "reload", "scale", "recycle", "drain"),
        *("ingest", "search", "ask", "store", "jobs", "keys", "config"),
        *("cache", "index", "backup", "restore", "export", "import"),
    }
    for name in names:
        assert f"\n  {name} " in told
    assert "..." not in told.partition("Commands:")[2], (
        "the first sentence of a command's help does not fit into one line"
    )


# The commands that open the index or run the engine bring its libraries; a server's client starts without them.
@pytest.mark.parametrize("command", ["status", "reload", "search", "ask", "ingest", "store", "keys", "serve"])
def test_a_command_that_only_asks_a_server_loads_nothing_heavy(command: str) -> None:
    code = f"import sys, ragagent.cli.{command}; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert run("upgrade").exit_code == 2
