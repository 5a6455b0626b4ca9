"""`ragagent backup` and `ragagent restore`, on a data directory that no server runs on."""

from __future__ import annotations

import json
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
