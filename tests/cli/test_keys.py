from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ragagent.store import keys as rows
from ragagent.store import stores
from ragagent.store.database import Database

Run = Callable[..., Result]
Keys = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def keys(run: Run, data: Path) -> Keys:
    """Run `ragagent keys ... --json` and return its document."""

    def keys(*arguments: str) -> Any:
        result = run("keys", *arguments, "--data", data, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return keys


def add_store(data: Path, name: str, tenant: str = "default") -> str:
    database = Database.open(data / "ragagent.db")
    with database.write() as tx:
        row = stores.add(
            tx, tenant=tenant, name=name, metadata={}, model="m", dimension=4, chunk_tokens=400, overlap_tokens=0
        )
    database.close()
    return row.id


def verified(data: Path, token: str) -> rows.KeyRow | None:
    database = Database.open(data / "ragagent.db")
    with database.read() as tx:
        found = rows.verify(tx, rows.pepper(data / "pepper"), token)
    database.close()
    return found


def test_the_first_key_needs_no_server_and_no_directory(keys: Keys, data: Path) -> None:
    made = keys("create", "ci")
    found = verified(data, made["token"])
    assert found is not None
    assert (found.id, found.name, found.tenant, found.stores) == (made["id"], "ci", "default", None)
    assert data.stat().st_mode & 0o777 == 0o700


def test_only_the_token_stands_on_stdout(run: Run, data: Path) -> None:
    result = run("keys", "create", "ci", "--data", data)
    assert verified(data, result.stdout.strip()) is not None
    assert "shown this once" in result.stderr


def test_a_key_is_bound_to_stores_by_name_or_id(keys: Keys, data: Path) -> None:
    keys("create", "first")
    named, other = add_store(data, "手册"), add_store(data, "b")
    made = keys("create", "bound", "--store", "手册", "--store", other)
    assert made["stores"] == [named, other]


def test_an_unknown_store_makes_no_key(run: Run, keys: Keys, data: Path) -> None:
    keys("create", "first")
    add_store(data, "theirs", tenant="them")
    result = run("keys", "create", "bound", "--store", "theirs", "--data", data)
    assert result.exit_code == 1
    assert "Tenant 'default' has no store" in result.stderr
    assert len(keys("ls")["data"]) == 1


def test_a_revoked_key_stays_in_the_list_and_no_longer_verifies(keys: Keys, run: Run, data: Path) -> None:
    made = keys("create", "gone")
    keys("create", "kept")
    keys("revoke", made["id"])
    assert verified(data, made["token"]) is None
    assert [(key["name"], key["revoked_at"] is None) for key in keys("ls")["data"]] == [("gone", False), ("kept", True)]
    again = run("keys", "revoke", made["id"], "--data", data)
    assert again.exit_code == 1
    assert "no active key" in again.stderr


def test_a_key_has_limits_of_its_own_that_can_be_changed(keys: Keys, run: Run, data: Path) -> None:
    keys("create", "general")
    made = keys("create", "own", "--requests-per-minute", "60", "--tokens-per-minute", "0")
    own = {"requests_per_minute": 60, "tokens_per_minute": 0, "concurrent_answers": None}
    assert made["limits"] == own
    changed = keys("limit", made["id"], "--requests-per-minute", "default", "--concurrent-answers", "4")
    own = {"requests_per_minute": None, "tokens_per_minute": 0, "concurrent_answers": 4}
    assert changed["limits"] == own
    assert [key["limits"] for key in keys("ls")["data"]] == [dict.fromkeys(own), own]
    shown = run("keys", "ls", "--data", data).stdout
    assert "unlimited tokens/min, 4 answers at a time" in shown
    assert "default" in shown


def test_only_an_active_key_can_be_limited(keys: Keys, run: Run, data: Path) -> None:
    made = keys("create", "gone")
    keys("revoke", made["id"])
    for key_id in (made["id"], "unknown"):
        result = run("keys", "limit", key_id, "--requests-per-minute", "1", "--data", data)
        assert result.exit_code == 1
        assert "no active key" in result.stderr


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "", "٣", "9" * 16])
def test_what_is_no_limit_makes_no_key(run: Run, data: Path, value: str) -> None:
    result = run("keys", "create", "ci", "--requests-per-minute", value, "--data", data)
    assert result.exit_code == 2
    assert "neither a whole number from 0 on nor 'default'" in result.stderr
    assert not data.exists()


def test_the_list_holds_no_secret(run: Run, keys: Keys, data: Path) -> None:
    token = keys("create", "ci")["token"]
    told = run("keys", "ls", "--data", data).stdout + run("keys", "ls", "--data", data, "--json").stdout
    assert "ci" in told
    assert token.rpartition("_")[2] not in told


@pytest.mark.parametrize("command", [["ls"], ["revoke", "x"]])
def test_looking_at_a_wrong_directory_makes_nothing_there(run: Run, data: Path, command: list[str]) -> None:
    result = run("keys", *command, "--data", data)
    assert result.exit_code == 1
    assert "There is no database" in result.stderr
    assert not data.exists()
