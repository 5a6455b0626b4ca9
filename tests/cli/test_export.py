from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ragagent.store import stores
from ragagent.store.database import Database

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    database = Database.open(tmp_path / "data" / "ragagent.db")
    with database.write() as tx:
        for name in ("one", "two"):
            stores.add(
                tx, tenant="t", name=name, metadata={}, model="m", dimension=4, chunk_tokens=400, overlap_tokens=0
            )
    database.close()
    return tmp_path / "data"


def names(text: str) -> list[str]:
    return [line["name"] for line in map(json.loads, text.splitlines()) if line["type"] == "store"]


def test_stdout_is_the_exports_own(run: Run, data: Path) -> None:
    result = run("export", "--jsonl", "--data", data)
    assert result.exit_code == 0, result.output
    assert names(result.stdout) == ["one", "two"]
    assert result.stderr == "Exported 2 stores, 0 documents, 0 chunks.\n"
    assert names(run("export", "--store", "two", "--data", data).stdout) == ["two"]
    assert run("export", "--json", "--data", data).exit_code == 2


def test_a_file_gets_its_name_when_it_is_whole(run: Run, data: Path) -> None:
    Path("out.jsonl").write_text("older")
    found = json.loads(run("export", "--out", "out.jsonl", "--data", data, "--json").stdout)
    assert found == {"object": "ragagent.export", "path": "out.jsonl", "stores": 2, "documents": 0, "chunks": 0}
    assert names(Path("out.jsonl").read_text()) == ["one", "two"]
    assert Path("out.jsonl").stat().st_mode & 0o777 == 0o600
    before = sorted(Path().iterdir())
    assert run("export", "--store", "three", "--out", "out.jsonl", "--data", data).exit_code == 1
    assert names(Path("out.jsonl").read_text()) == ["one", "two"], "what could not be replaced stays"
    assert sorted(Path().iterdir()) == before


def test_what_cannot_be_written_is_told(run: Run, data: Path) -> None:
    result = run("export", "--out", "no/such/place.jsonl", "--data", data)
    assert result.exit_code == 1
    assert result.stderr == "Error: 'no/such/place.jsonl' cannot be written: No such file or directory.\n"
    full = run("export", "--data", "nowhere")
    assert full.exit_code == 1
    assert "There is no database" in full.stderr
