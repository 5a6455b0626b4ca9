"""`ragagent backup` and `ragagent restore`, on a data directory that no server runs on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ragagent.store.database import Database

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    Database.open(tmp_path / "data" / "ragagent.db").close()
    return tmp_path / "data"


def test_a_backup_tells_what_it_is(run: Run, data: Path) -> None:
    result = run("backup", "b.tar.zst", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["object"] == "ragagent.backup"
    assert found["bytes"] == Path("b.tar.zst").stat().st_size
    assert (found["path"], found["seq"], found["stores"], found["left_out"]) == ("b.tar.zst", 0, {}, [])
    told = run("backup", "again", "--data", data, "--without-index").stdout
    assert told.startswith("Backup 'again': ")


def test_a_backup_that_cannot_be_made_is_an_error_in_one_line(run: Run, data: Path) -> None:
    run("backup", "b", "--data", data)
    result = run("backup", "b", "--data", data)
    assert result.exit_code == 1
    assert result.stderr == "Error: 'b' exists already; a backup replaces nothing.\n"
    assert run("backup", "b", "--data", "nowhere").exit_code == 1
    assert run("backup").exit_code == 2


def test_told_to_end_it_leaves_nothing(data: Path, tmp_path: Path) -> None:
    """SIGTERM, as a timer's limit or a stopped unit sends it, amid the copy."""
    code = (
        "import os, signal, sys\n"
        "from ragagent.cli.main import cli; from ragagent.store import snapshot\n"
        "snapshot.check = lambda path: os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "backup", str(tmp_path / "b"), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
