"""The database of a data directory, for the commands that work on it themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ragagent.config import Data
from ragagent.errors import NotFound
from ragagent.store import stores
from ragagent.store.database import Database, Transaction
from ragagent.types import VectorStore


@contextmanager
def opened(data: Data, *, must_exist: bool = True) -> Iterator[Database]:
    if must_exist and not data.database.is_file():
        raise NotFound(f"There is no database in data directory '{data.dir}'; name yours with --data or --config.")
    database = Database.open(data.database)
    try:
        yield database
    finally:
        database.close()


def store_named(tx: Transaction, tenant: str, name: str) -> VectorStore:
    found = stores.find(tx, tenant, name)
    if found is None:
        raise NotFound(f"Tenant '{tenant}' has no store with the name or id '{name}'.")
    return found
