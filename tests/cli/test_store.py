from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import Result

from fake_ragagent import FakeRagagent

Run = Callable[..., Result]


def test_stores_are_created_listed_shown_and_removed(ask: Run, fake: FakeRagagent) -> None:
    for name in ("a", "手册", "c"):
        assert ask("store", "create", name).exit_code == 0
    lines = ask("store", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "a", "手册", "c"]
    assert "vs_2" in ask("store", "show", "手册").stdout
    assert ask("store", "rm", "手册", "--yes").exit_code == 0
    assert [store.name for store in fake.stores.values()] == ["a", "c"]


def test_no_store_says_how_to_make_one(ask: Run) -> None:
    assert "store create NAME" in ask("store", "ls").stdout


def test_json_is_one_document_for_each(ask: Run) -> None:
    made = json.loads(ask("store", "create", "a", "--json").stdout)
    assert json.loads(ask("store", "ls", "--json").stdout) == {"object": "list", "data": [made]}
    assert json.loads(ask("store", "show", made["id"], "--json").stdout) == {**made, "failed_files": []}
    assert json.loads(ask("store", "rm", "a", "--yes", "--json").stdout)["deleted"] is True


def test_a_second_store_of_one_name_is_refused(ask: Run, fake: FakeRagagent) -> None:
    ask("store", "create", "a")
    result = ask("store", "create", "a")
    assert result.exit_code == 1
    assert "already" in result.stderr
    assert len(fake.stores) == 1


def test_show_names_what_failed_and_why(ask: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text("BAD")
    ask("ingest", tmp_path / "bad.md")
    assert f"failed: {tmp_path.name}/bad.md: It is bad." in ask("store", "show", "default").stdout


def test_rm_without_anyone_to_ask_removes_nothing(ask: Run, fake: FakeRagagent) -> None:
    ask("store", "create", "a")
    result = ask("store", "rm", "a")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert len(fake.stores) == 1


def test_rm_leaves_the_files_unless_told(ask: Run, fake: FakeRagagent, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(str(number))
    ask("ingest", tmp_path)
    ask("store", "rm", "default", "--yes")
    assert len(fake.uploads) == 3
    ask("ingest", tmp_path)
    assert len(fake.uploads) == 6
    ask("store", "rm", "default", "--yes", "--files")
    assert len(fake.uploads) == 3


def test_an_unknown_store_is_exit_code_1(ask: Run) -> None:
    for arguments in (["show", "none"], ["rm", "none", "--yes"]):
        result = ask("store", *arguments)
        assert result.exit_code == 1
        assert click.unstyle(result.stderr).startswith("Error: ")
