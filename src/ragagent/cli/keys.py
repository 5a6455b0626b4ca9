"""`ragagent keys`: who may use the server. Works on the data directory itself: no server has to run, and the first key
exists before the first start. A running server sees each change within a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ragagent.types import Allowance

_HEADER = ("ID", "NAME", "TENANT", "STORES", "LIMITS", "CREATED", "REVOKED")
_DEFAULT = "default"
_MAX_DIGITS = 15  # SQLite's integers, and Lua's, end not far above


class _Limit(click.ParamType[int | str]):
    """A whole number from 0 on, or "default"."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == _DEFAULT:
            return _DEFAULT
        if not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS):
            self.fail(f"'{value}' is neither a whole number from 0 on nor '{_DEFAULT}'.", param, ctx)
        return int(value)


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each limit that a key may have of its own."""
    for option, what in (
        ("--concurrent-answers", "Answers under way at a time."),
        ("--tokens-per-minute", "Tokens that models read and write for it."),
        ("--requests-per-minute", "Requests of every kind."),
    ):
        about = f"{what} 0: no limit; '{_DEFAULT}': as [limits] says."
        command = click.option(option, type=_Limit(), metavar="N", help=about)(command)
    return command


@click.group()
def keys() -> None:
    """Create, list, limit and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--tenant", default="default", show_default=True, help="Whose documents the key sees.")
@click.option(
    "--store", "names", multiple=True, metavar="NAME", help="Bind the key to a store (name or id); repeatable."
)
@_limits
@reporting
@with_data
def create(name: str, tenant: str, names: Sequence[str], out: Output, data: Data, **limits: int | str | None) -> None:
    """Create a key; its token is shown this once."""
    with _created(data) as database:
        pepper = rows.pepper(data.pepper)
        with database.write() as tx:
            ids = [store_named(tx, tenant, store).id for store in names] or None
            allowance = _changed(Allowance(), limits)
            row, token = rows.add(tx, pepper, tenant=tenant, name=name, stores=ids, allowance=allowance)
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


@keys.command("limit")
@click.argument("key_id", metavar="ID")
@_limits
@reporting
@with_data
def limit(key_id: str, out: Output, data: Data, **limits: int | str | None) -> None:
    """Change what a key may ask for; what is not named stays. A running server follows within a second."""
    with opened(data) as database, database.write() as tx:
        row = next((row for row in rows.listing(tx) if row.id == key_id and row.revoked_at is None), None)
        if row is None:
            raise NotFound(f"There is no active key with the id '{key_id}'; 'ragagent keys ls' shows them.")
        changed = dataclasses.replace(row, allowance=_changed(row.allowance, limits))
        rows.limit(tx, key_id, changed.allowance)
    if out.as_json:
        out.document(_shown(changed))
    else:
        out.line(f"Key {key_id} '{changed.name}': {_limits_of(changed)}.")


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


def _changed(allowance: Allowance, limits: Mapping[str, int | str | None]) -> Allowance:
    """Return the allowance with what the options say; an option that was not given says nothing."""
    said = {name: value if isinstance(value, int) else None for name, value in limits.items() if value is not None}
    return dataclasses.replace(allowance, **said)


def _shown(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "ragagent.key",
        "name": row.name,
        "tenant": row.tenant,
        "stores": None if row.stores is None else list(row.stores),
        "limits": dataclasses.asdict(row.allowance),
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }


def _cells(row: KeyRow) -> tuple[str | None, ...]:
    bound = "all" if row.stores is None else ",".join(row.stores)
    revoked = None if row.revoked_at is None else moment(row.revoked_at)
    return row.id, row.name, row.tenant, bound, _limits_of(row), moment(row.created_at), revoked


def _limits_of(row: KeyRow) -> str:
    own = row.allowance
    units = (
        (own.requests_per_minute, "requests/min"),
        (own.tokens_per_minute, "tokens/min"),
        (own.concurrent_answers, "answers at a time"),
    )
    said = [f"{limit or 'unlimited'} {unit}" for limit, unit in units if limit is not None]
    return ", ".join(said) or _DEFAULT
