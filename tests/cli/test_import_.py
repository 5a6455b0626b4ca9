from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from click.testing import Result

from ragagent.cli import import_

Run = Callable[..., Result]

STORE = {"type": "store", "id": "vs_a", "name": "docs", "model": "wordllama-256", "dimension": 256}
GOOD = {"type": "document", "store": "vs_a", "external_id": "a", "text": "A reload drops no request."}
BAD = {"type": "document", "store": "vs_a", "external_id": "b", "text": ""}


def encoded(*lines: Mapping[str, Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def test_it_reads_a_file_or_stdin_and_says_what_became_of_it(run: Run) -> None:
    Path("in.jsonl").write_bytes(encoded(STORE, GOOD))
    found = json.loads(run("import", "in.jsonl", "--data", "data", "--json").stdout)
    counts = {"stores": 1, "added": 0, "queued": 1, "unchanged": 0, "failed": 0, "failures": []}
    assert found == {"object": "ragagent.import", **counts}
    result = run("import", "-", "--data", "data", stdin=encoded(STORE, GOOD))
    assert result.exit_code == 0
    assert result.stdout == "0 stores made; 0 documents added, 0 queued, 1 unchanged, 0 failed.\n"


def test_a_wrong_line_fails_and_the_others_go_in(run: Run) -> None:
    result = run("import", "-", "--data", "data", stdin=encoded(STORE, BAD, GOOD))
    assert result.exit_code == 1
    assert result.stderr == "Line 2: field 'text': The text is empty.\n"
    assert "1 queued, 0 unchanged, 1 failed" in result.stdout


def test_the_stores_model_is_the_configured_one(run: Run) -> None:
    other = {"RAGAGENT_EMBEDDER__MODEL": "another"}
    assert run("import", "-", "--data", "data", stdin=encoded(STORE), **other).exit_code == 0
    result = run("import", "-", "--data", "data", stdin=encoded(STORE, GOOD))
    assert result.exit_code == 1
    assert "holds vectors of 'another'" in result.stderr
    assert run("import", "-", "--data", "data", stdin=encoded(STORE, GOOD), **other).exit_code == 0


def test_what_cannot_be_read_is_told(run: Run, monkeypatch: Any) -> None:
    result = run("import", "nowhere.jsonl", "--data", "data")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: 'nowhere.jsonl' cannot be read: No such file or directory.\n",
    )
    monkeypatch.setattr(import_, "MAX_LINE", 10)
    assert "more than 10 bytes" in run("import", "-", "--data", "data", stdin=encoded(STORE)).stderr
