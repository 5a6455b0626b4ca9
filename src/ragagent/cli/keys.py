"""`ragagent keys`: who may use the server. Works on the data directory itself: no server has to run, and the first key
exists before the first start. A running server sees each change within a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ragagent.cli.data_directory import with_data
from ragagent.cli.database import opened, store_named
from ragagent.cli.output import Output, moment, reporting, table
from ragagent.config import Data
from ragagent.errors import NotFound, RagagentError
from ragagent.store import keys as rows
from ragagent.store.database import Database
from ragagent.store.keys import KeyRow

_HEADER = ("ID", "NAME", "TENANT", "STORES", "CREATED", "REVOKED")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--tenant", default="default", show_default=True, help="Whose documents the key sees.")
@click.option(
    "--store", "names", multiple=True, metavar="NAME", help="Bind the key to a store (name or id); repeatable."
)
@reporting
@with_data
def create(name: str, tenant: str, names: Sequence[str], out: Output, data: Data) -> None:
    """Create a key; its token is shown this once."""
    with _created(data) as database:
        pepper = rows.pepper(data.pepper)
        with database.write() as tx:
            ids = [store_named(tx, tenant, store).id for store in names] or None
            row, token = rows.add(tx, pepper, tenant=tenant, name=name, stores=ids)
    if out.as_json:
        out.document({**_shown(row), "token": token})
        return
    # Apart, so that TOKEN=$(ragagent keys create ...) holds the token and nothing else.
    click.echo(f"Key {row.id} '{name}'. Keep the token: it is shown this once.", err=True)
    click.echo(token)


@keys.command("ls")
@reporting
@with_data
def ls(out: Output, data: Data) -> None:
    """List the keys, revoked ones included."""
    with opened(data) as database, database.read() as tx:
        found = rows.listing(tx)
    if out.as_json:
        out.document({"object": "list", "data": [_shown(row) for row in found]})
    elif found:
        out.line(table(_HEADER, [_cells(row) for row in found]))
    else:
        out.line("There is no key.")


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@reporting
@with_data
def revoke(key_id: str, out: Output, data: Data) -> None:
    """Revoke a key by its id; a running server refuses it within a second."""
    with opened(data) as database, database.write() as tx:
        if not rows.revoke(tx, key_id):
            raise NotFound(f"There is no active key with the id '{key_id}'; 'ragagent keys ls' shows them.")
    if out.as_json:
        out.document({"id": key_id, "object": "ragagent.key", "revoked": True})
    else:
        out.line(f"Key {key_id} is revoked.")


@contextmanager
def _created(data: Data) -> Iterator[Database]:
    """Open the database, made if it is not there: without a first key, a public server does not start."""
    try:
        data.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise RagagentError(f"Data directory '{data.dir}' cannot be created: {exc.strerror}.") from exc
    with opened(data, must_exist=False) as database:
        yield database


def _shown(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "ragagent.key",
        "name": row.name,
        "tenant": row.tenant,
        "stores": None if row.stores is None else list(row.stores),
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }


def _cells(row: KeyRow) -> tuple[str | None, ...]:
    bound = "all" if row.stores is None else ",".join(row.stores)
    revoked = None if row.revoked_at is None else moment(row.revoked_at)
    return row.id, row.name, row.tenant, bound, moment(row.created_at), revoked
