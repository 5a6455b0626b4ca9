from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from ragagent.cli.selection import SUFFIXES, Selection, select


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    names = ["a.md", "b.TXT", "c.bin", "no-suffix", ".hidden.md", "deep/er/d.pdf", ".git/e.md", "deep/.cache/f.md"]
    for name in names:
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "docs"


def names(paths: list[str | Path], pattern: str | None = None) -> list[str]:
    return list(select([str(path) for path in paths], pattern).sources)


def test_a_directory_gives_its_supported_files_and_nothing_hidden(docs: Path) -> None:
    assert names([docs]) == ["docs/a.md", "docs/b.TXT", "docs/deep/er/d.pdf"]
    assert select([str(docs)], None).skipped == 2


def test_a_file_has_one_name_however_it_is_given(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names([docs / "a.md"]) == ["docs/a.md"]
    monkeypatch.chdir(docs)
    assert names(["."])[0] == names(["a.md"])[0] == names(["../docs/"])[0] == "docs/a.md"
    assert names([".", "a.md", docs]).count("docs/a.md") == 1


def test_a_named_file_is_taken_whatever_it_is_called(docs: Path) -> None:
    assert names([docs / "c.bin", docs / ".hidden.md"]) == ["docs/c.bin", "docs/.hidden.md"]


def test_a_pattern_chooses_instead_of_the_suffix(docs: Path) -> None:
    assert names([docs], "*.bin") == ["docs/c.bin"]
    assert names([docs], "er/*.pdf") == ["docs/deep/er/d.pdf"]
    assert names([docs], "docs/*.md") == ["docs/a.md"]


def test_two_files_of_one_name_are_refused(docs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    (other / "a.md").write_text("another")
    with pytest.raises(click.UsageError, match="would both be known as"):
        names([docs, other])


def test_what_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="does not exist"):
        names([tmp_path / "none"])


def test_a_link_to_a_directory_above_does_not_go_round(docs: Path) -> None:
    (docs / "loop").symlink_to(docs)
    (docs / "link.md").symlink_to(docs / "a.md")
    (docs / "dangling.md").symlink_to(docs / "none.md")
    os.mkfifo(docs / "pipe.md")
    assert names([docs]) == ["docs/a.md", "docs/b.TXT", "docs/link.md", "docs/deep/er/d.pdf"]


def test_a_name_that_is_not_utf8_can_travel(docs: Path) -> None:
    Path(os.fsdecode(bytes(docs) + b"/\xff.md")).write_text("x")
    assert "docs/\N{REPLACEMENT CHARACTER}.md" in names([docs])


def test_a_directory_that_cannot_be_read_is_told() -> None:
    selection = Selection()
    selection.unread(PermissionError(errno.EACCES, "Permission denied", "/docs/deep"))  # As os.walk reports it.
    assert selection.unreadable == [("/docs/deep", "Permission denied")]


def test_the_suffixes_are_those_that_are_promised() -> None:
    assert {".txt", ".md", ".html", ".htm", ".pdf", ".docx", ".csv", ".json", ".jsonl"} == SUFFIXES
