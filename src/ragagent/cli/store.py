"""`ragagent store`: the collections of a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ragagent.cli.client import JSON, Client, segment, with_client
from ragagent.cli.output import Cell, Output, clean, moment, reporting, size, table
from ragagent.errors import RagagentError

SHOWN_FAILURES = 20

_HEADER = ("NAME", "ID", "STATUS", "FILES", "WAITING", "FAILED", "SIZE", "CREATED")


@click.group()
def store() -> None:
    """List, create, show and remove stores."""


@store.command("ls")
@reporting
@with_client
def ls(out: Output, client: Client) -> None:
    """List the stores, oldest first."""
    found = list(client.items("/v1/vector_stores"))
    if out.as_json:
        out.document({"object": "list", "data": found})
    elif found:
        out.line(table(_HEADER, [_row(entry) for entry in found]))
    else:
        out.line("There is no store yet; 'ragagent store create NAME' makes one, and so does 'ragagent ingest'.")


@store.command("create")
@click.argument("name")
@reporting
@with_client
def create(name: str, out: Output, client: Client) -> None:
    """Create a store."""
    if find(client, name) is not None:
        # The API allows two stores of one name, of which only the older is ever found by it.
        raise RagagentError(f"There is a store of the name '{name}' already.", code="conflict")
    made = add(client, name)
    if out.as_json:
        out.document(made)
    else:
        out.line(f"Store '{clean(name)}' is {made['id']}.")


@store.command("show")
@click.argument("name")
@reporting
@with_client
def show(name: str, out: Output, client: Client) -> None:
    """Show a store, and the files in it that failed."""
    found = client.get(f"/v1/vector_stores/{segment(name)}")
    page = client.get(f"/v1/vector_stores/{found['id']}/files", filter="failed", limit=SHOWN_FAILURES)
    if out.as_json:
        out.document({**found, "failed_files": page["data"]})
        return
    out.line(table(_HEADER, [_row(found)]))
    for key, value in found["metadata"].items():
        out.line(clean(f"{key}: {value}"))
    for file in page["data"]:
        reason = (file["last_error"] or {}).get("message", "failed")
        out.line(clean(f"failed: {file['attributes'].get('path') or file['external_id'] or file['id']}: {reason}"))
    if page["has_more"]:
        out.line("... and more; the API lists them all.")


@store.command("rm")
@click.argument("name")
@click.option("--files", "with_files", is_flag=True, help="Delete its files as well, from every store they are in.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reporting
@with_client
def rm(name: str, with_files: bool, yes: bool, out: Output, client: Client) -> None:
    """Remove a store. Its files stay uploaded, as in OpenAI's API, unless --files is given."""
    found = client.get(f"/v1/vector_stores/{segment(name)}")
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("Removing a store asks for confirmation, and nobody is here to answer: give --yes.")
        also = f" and delete its {found['file_counts']['total']} files" if with_files else ""
        click.confirm(f"Remove store '{clean(found['name'])}' ({found['id']}){also}?", abort=True, err=True)
    path = f"/v1/vector_stores/{found['id']}"
    files = [file["id"] for file in client.items(f"{path}/files")] if with_files else []
    deleted = client.delete(path)
    for file_id in files:
        client.delete(f"/v1/files/{file_id}")
    if out.as_json:
        out.document(deleted)
    else:
        out.line(f"Store '{clean(found['name'])}' ({found['id']}) is removed.")


def find(client: Client, name: str) -> JSON | None:
    """Return the store of that id or name, or None."""
    try:
        return client.get(f"/v1/vector_stores/{segment(name)}")
    except RagagentError as exc:
        if exc.code == "not_found":
            return None
        raise


def add(client: Client, name: str) -> JSON:
    return client.post("/v1/vector_stores", {"name": name})


def _row(found: Mapping[str, Any]) -> Sequence[Cell]:
    counts = found["file_counts"]
    return (
        found["name"],
        found["id"],
        found["status"],
        counts["completed"],
        counts["in_progress"],
        counts["failed"],
        size(found["usage_bytes"]),
        moment(found["created_at"]),
    )
