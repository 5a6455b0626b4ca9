from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ragagent.store.database import Database

Run = Callable[..., Result]


@pytest.fixture
def whole(run: Run, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    Database.open(tmp_path / "data" / "ragagent.db").close()
    assert run("backup", "whole", "--data", tmp_path / "data").exit_code == 0
    return tmp_path / "whole"


def test_a_backup_is_put_into_a_new_directory(run: Run, whole: Path) -> None:
    result = run("restore", whole, "--data", "new")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Restored to 'new': the backup of ")
    assert Path("new/ragagent.db").is_file()
    found = json.loads(run("restore", whole, "--data", "newer", "--json").stdout)
    assert (found["object"], found["directory"], found["seq"]) == ("ragagent.restore", "newer", 0)


def test_verify_changes_nothing(run: Run, whole: Path) -> None:
    before = sorted(Path().rglob("*"))
    assert run("restore", "--verify", whole).stdout.startswith("The backup is whole: of ")
    assert sorted(Path().rglob("*")) == before


def test_a_damaged_backup_is_named_and_fails(run: Run, whole: Path) -> None:
    whole.write_bytes(whole.read_bytes()[:-1])
    for arguments in (("--verify",), ("--data", "new")):
        result = run("restore", whole, *arguments, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"]["code"] == "damaged"
    assert not Path("new").exists()


def test_where_to_has_to_be_said(run: Run, whole: Path) -> None:
    assert run("restore", whole).exit_code == 2
    assert run("restore", whole, "--verify", "--data", "new").exit_code == 2
