from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragagent
from ragagent.cache.recipe import PARTS, recipe

PACKAGE = Path(ragagent.__file__).parent
SOURCES = ["engine/answering/prompt.py", "index/fusion.py", "text.py", "store/schema/003.sql"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Some of the sources, copied, which a test may change."""
    for name in (*SOURCES, "index/files.py", "api/chat.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, tmp_path / name)
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    recipe.cache_clear()
    yield tmp_path
    recipe.cache_clear()


def again() -> str:
    recipe.cache_clear()
    return recipe()


def test_every_part_is_there() -> None:
    assert [part for part in PARTS if not (PACKAGE / part).exists()] == []


@pytest.mark.parametrize("name", SOURCES)
def test_another_source_is_another_recipe(package: Path, name: str) -> None:
    before = recipe()
    assert again() == before
    with (package / name).open("a") as source:
        source.write("\n# another rule\n")
    assert again() != before


def test_a_source_that_moves_its_text_to_another_is_another_recipe(package: Path) -> None:
    before = recipe()
    (package / "index" / "fusion.py").rename(package / "index" / "fusing.py")
    assert again() != before


def test_code_that_decides_nothing_changes_nothing(package: Path) -> None:
    before = recipe()
    (package / "api" / "chat.py").unlink()
    (package / "index" / "fusion.pyc").write_bytes(b"compiled")
    assert again() == before
