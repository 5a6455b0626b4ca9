"""API keys: only the genuine token opens, and nothing that a stranger sends makes a mess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ragagent.errors import Damaged
from ragagent.store import keys
from ragagent.store.database import Database
from ragagent.types import Allowance

PEPPER = b"p" * 32


def test_the_pepper_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    found = keys.pepper(path)
    assert len(found) == 32
    assert keys.pepper(path) == found
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["pepper"]


def test_processes_that_make_the_pepper_at_once_agree_on_it(tmp_path: Path) -> None:
    imports = "import sys; from pathlib import Path; from ragagent.store.keys import pepper; "
    code = imports + "print(pepper(Path(sys.argv[1])).hex())"
    command = [sys.executable, "-c", code, str(tmp_path / "pepper")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    assert {child.communicate(timeout=30)[0].strip() for child in children} == {
        (tmp_path / "pepper").read_bytes().hex()
    }


def test_a_crash_while_the_pepper_is_made_leaves_none_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pepper"

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "link", "unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, crash)
            with pytest.raises(KeyboardInterrupt):
                keys.pepper(path)
        assert len(keys.pepper(path)) == 32
        path.unlink()


def test_a_pepper_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(Damaged, match="5 bytes, not 32"):
        keys.pepper(tmp_path / "pepper")


def test_a_token_opens_what_its_key_may_use(database: Database) -> None:
    with database.write() as tx:
        row, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=["vs_1"])
        other, everything = keys.add(tx, PEPPER, tenant="acme", name="all", stores=None)
    with database.read() as tx:
        assert keys.verify(tx, PEPPER, token) == row
        assert keys.verify(tx, PEPPER, everything) == other
        assert (row.tenant, row.name, row.stores, other.stores) == ("acme", "ci", ("vs_1",), None)


def test_a_key_has_limits_of_its_own_or_those_of_all(database: Database) -> None:
    own = Allowance(60, 0, None)
    with database.write() as tx:
        row, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=None, allowance=own)
        _, general = keys.add(tx, PEPPER, tenant="acme", name="all", stores=None)
    with database.write() as tx:
        assert [key.allowance for key in (keys.verify(tx, PEPPER, token), keys.verify(tx, PEPPER, general)) if key] == [
            own,
            Allowance(),
        ]
        assert keys.limit(tx, row.id, Allowance(concurrent_answers=4))
        assert not keys.limit(tx, "unknown", own)
    with database.write() as tx:
        assert [key.allowance for key in keys.listing(tx)] == [Allowance(None, None, 4), Allowance()]
        keys.revoke(tx, row.id)
        assert not keys.limit(tx, row.id, own)


def test_the_secret_is_not_stored(database: Database) -> None:
    with database.write() as tx:
        _, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=None)
        secret = token.split("_", 2)[2].encode()
        assert all(secret not in value for row in tx.execute("SELECT mac, id FROM api_keys") for value in (row[0],))
    assert secret not in database.path.read_bytes()


def test_a_token_of_another_pepper_does_not_open(database: Database) -> None:
    with database.write() as tx:
        _, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=None)
        assert keys.verify(tx, b"q" * 32, token) is None


def test_a_revoked_key_does_not_open_and_is_revoked_once(database: Database) -> None:
    with database.write() as tx:
        row, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=None)
        assert keys.active(tx) == 1
        assert [keys.revoke(tx, row.id), keys.revoke(tx, row.id), keys.revoke(tx, "nobody")] == [True, False, False]
        assert keys.verify(tx, PEPPER, token) is None
        assert keys.active(tx) == 0
        assert [(found.id, found.revoked_at is not None) for found in keys.listing(tx)] == [(row.id, True)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.from_regex(r"rag_[0-9a-f]{0,12}_?.{0,50}"), st.sampled_from(["as is", "tail", "head", "bare"]))
@example("\ud800", "as is")
@example("rag_\ud800_\ud800", "tail")
@example("", "as is")
@example("rag__", "as is")
def test_no_malformed_token_opens_or_raises(database: Database, junk: str, place: str) -> None:
    with database.write() as tx:
        _, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=None)
        forged = {"as is": junk, "tail": token + junk, "head": junk + token, "bare": token.removeprefix("rag_")}[place]
        if forged != token:
            assert keys.verify(tx, PEPPER, forged) is None
