from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fake_ragagent import FakeRagagent, Gone, Raw

Run = Callable[..., Result]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    directory = tmp_path / "docs"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.md").write_text("one")
    (directory / "sub" / "说明.txt").write_text("二")
    (directory / "tool.exe").write_text("MZ")
    return directory


def test_a_directory_is_loaded_into_a_store_made_for_it(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    result = ask("ingest", docs, "--store", "手册")
    assert result.exit_code == 0
    assert result.stdout == "Store '手册' (vs_1): 2 added (1 files of other kinds passed over).\n"
    assert result.stderr == ""
    assert fake.names("手册") == {"docs/a.md": b"one", "docs/sub/说明.txt": "二".encode()}


def test_again_only_what_changed_is_sent(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    ask("ingest", docs)
    (docs / "a.md").write_text("two")
    (docs / "new.md").write_text("three")
    result = ask("ingest", docs)
    assert "1 added, 1 replaced, 1 unchanged" in result.stdout
    assert fake.names()["docs/a.md"] == b"two"
    assert fake.asked("POST", "/v1/files") == 4
    assert len(fake.stores) == 1


def test_json_is_one_summary(ask: Run, docs: Path) -> None:
    (docs / "bad.md").write_text("BAD")
    result = ask("ingest", docs, "--json", "--attribute", "year=2024")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "object": "ragagent.ingest",
        "store": {"id": "vs_1", "name": "default", "created": True},
        "added": 2,
        "replaced": 0,
        "updated": 0,
        "unchanged": 0,
        "stored": 0,
        "failed": 1,
        "skipped": 1,
        "failures": [{"path": "docs/bad.md", "reason": "It is bad."}],
    }


def test_each_failed_file_is_one_line_with_its_reason(ask: Run, docs: Path) -> None:
    (docs / "bad.md").write_text("BAD")
    result = ask("ingest", docs)
    assert result.exit_code == 1
    assert result.stderr == "docs/bad.md: It is bad.\n"
    assert "2 added, 1 failed" in result.stdout


def test_attributes_go_with_each_file(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    ask("ingest", docs, "--attribute", "year=2024", "--attribute", "team=文档")
    for file in fake.store().files.values():
        assert (file["attributes"]["year"], file["attributes"]["team"]) == (2024, "文档")


def test_a_text_from_stdin_is_stored_under_its_id(ask: Run, fake: FakeRagagent) -> None:
    result = ask("ingest", "-", "--external-id", "note/1", stdin="你好".encode())
    assert result.exit_code == 0
    (file,) = fake.store().files.values()
    assert (file["external_id"], fake.uploads[file["id"]].data.decode()) == ("note/1", "你好")


def test_a_failed_text_is_exit_code_1(ask: Run) -> None:
    result = ask("ingest", "-", "--external-id", "n", stdin=b"BAD")
    assert (result.exit_code, result.stderr) == (1, "n: It is bad.\n")


def test_stdin_that_is_no_text_is_refused(ask: Run, fake: FakeRagagent) -> None:
    result = ask("ingest", "-", "--external-id", "n", stdin=b"\xff\xfe")
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr
    assert fake.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-directory"],
        ["-"],
        ["-", "docs", "--external-id", "x"],
        ["docs", "--external-id", "x"],
        ["docs", "--attribute", "novalue"],
        ["docs", "--attribute", "path=x"],
        ["docs", "--attribute", "sha256=x"],
        ["docs", "--store", "a/b"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_asks_nothing(
    ask: Run, fake: FakeRagagent, docs: Path, arguments: list[str]
) -> None:
    assert ask("ingest", *arguments, stdin=b"text").exit_code == 2
    assert fake.requests == []


def test_nothing_to_ingest_is_told_and_makes_no_store(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    result = ask("ingest", docs, "--glob", "*.rst")
    assert result.exit_code == 1
    assert "no file in" in result.stderr
    assert fake.stores == {}


def test_a_server_that_goes_away_ends_the_run_and_says_how_far_it_came(
    ask: Run, fake: FakeRagagent, docs: Path
) -> None:
    fake.trouble(None, None, None, Gone())  # Find the store, make it, look into it; the first upload is its last.
    result = ask("ingest", docs)
    assert result.exit_code == 1
    assert "No server answers" in result.stderr
    assert "0 of 2 files are done; run it again to go on." in result.stderr


def test_a_key_goes_with_every_request(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    ask("ingest", docs, RAGAGENT_API_KEY="rag_x_y")
    assert {asked.headers.get("authorization") for asked in fake.requests} == {"Bearer rag_x_y"}


def test_an_answer_that_is_not_the_servers_ends_the_run(ask: Run, fake: FakeRagagent, docs: Path) -> None:
    fake.trouble(Raw(200, b"<html>"))
    assert "is it a RAGAgent server" in ask("ingest", docs).stderr
