"""Who is calling: from a token to a caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ragagent.engine import access
from ragagent.engine.access import ANONYMOUS, Access
from ragagent.errors import Unauthorized
from ragagent.store import keys
from ragagent.store.database import Database
from ragagent.types import Allowance, Caller

pytestmark = pytest.mark.anyio
PEPPER = b"p" * 32
GENERAL = Allowance()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


def create(database: Database, stores: list[str] | None = None, allowance: Allowance = GENERAL) -> tuple[str, str]:
    """Return a new key's id and token."""
    with database.write() as tx:
        row, token = keys.add(tx, PEPPER, tenant="acme", name="ci", stores=stores, allowance=allowance)
    return row.id, token


@pytest.mark.parametrize("required", [False, True])
async def test_a_key_is_its_tenant_and_its_stores(database: Database, required: bool) -> None:
    key_id, token = create(database, ["vs_1"], Allowance(60))
    caller = await Access(database, PEPPER, required=required).caller(token)
    assert caller == Caller("acme", key_id, frozenset(["vs_1"]), Allowance(60))
    assert [caller.may_use(store) for store in ("vs_1", "vs_2")] == [True, False]


async def test_a_key_without_stores_may_use_all_of_its_tenant(database: Database) -> None:
    _, token = create(database)
    caller = await Access(database, PEPPER, required=True).caller(token)
    assert caller.stores is None
    assert caller.may_use("vs_1")


@pytest.mark.parametrize("token", [None, "", "sk-anything"])
async def test_where_keys_are_optional_a_stranger_is_anonymous(database: Database, token: str | None) -> None:
    assert await Access(database, PEPPER, required=False).caller(token) == ANONYMOUS


@pytest.mark.parametrize(
    "token", [None, "", "sk-anything", "rag_", "rag_x_y", "rag_\ud800_", "rag_é_é", "rag_" + "x" * 999]
)
async def test_where_keys_are_required_a_stranger_is_refused(database: Database, token: str | None) -> None:
    create(database)
    with pytest.raises(Unauthorized):
        await Access(database, PEPPER, required=True).caller(token)


async def test_a_token_of_ours_that_is_wrong_is_refused_even_where_keys_are_optional(database: Database) -> None:
    # It was meant to narrow what the caller may do; falling back to "everything" would widen it.
    with pytest.raises(Unauthorized, match="not known, or it was revoked"):
        await Access(database, PEPPER, required=False).caller("rag_abc_def")


async def test_a_key_is_looked_up_once_for_a_moment(database: Database) -> None:
    key_id, token = create(database)
    opened = Access(database, PEPPER, required=True)
    caller = await opened.caller(token)
    database.close()
    database.path.unlink()
    assert await opened.caller(token) == caller
    assert caller.key_id == key_id


async def test_a_revoked_key_is_forgotten_after_that_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBER_SECONDS", 0.0)
    key_id, token = create(database)
    opened = Access(database, PEPPER, required=True)
    await opened.caller(token)
    with database.write() as tx:
        keys.revoke(tx, key_id)
    with pytest.raises(Unauthorized):
        await opened.caller(token)


async def test_as_many_keys_are_remembered_as_fit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "REMEMBER_KEYS", 2)
    opened = Access(database, PEPPER, required=True)
    tokens = [create(database)[1] for _ in range(3)]
    for token in tokens:
        await opened.caller(token)
    database.close()
    database.path.unlink()
    assert [(await opened.caller(token)).tenant for token in tokens[1:]] == ["acme", "acme"]
    assert len(opened._known) == 2
