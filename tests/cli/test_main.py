from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from click.testing import Result

from ragagent import __version__
from ragagent.cli.main import cli

Run = Callable[..., Result]

HEAVY = ("faiss", "numpy", "tantivy", "starlette", "pydantic", "hypercorn", "opentelemetry", "redis")


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"ragagent {__version__}\n"


def test_help_names_every_command_in_a_whole_sentence(run: Run) -> None:
    told = run("--help").stdout
    assert set(cli.commands) == {
        *("serve", "status", "top", "logs", "reload", "scale", "recycle", "drain"),
        *("ingest", "search", "ask", "store", "jobs", "keys", "config"),
    }
    for name in cli.commands:
        assert f"\n  {name} " in told
    assert "..." not in told.partition("Commands:")[2], (
        "the first sentence of a command's help does not fit into one line"
    )


def test_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, ragagent.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert run("upgrade").exit_code == 2
