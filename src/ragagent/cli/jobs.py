"""`ragagent jobs`: what is on its way into the stores, how far it is, and what did not get there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ragagent.cli.client import JSON, Client, segment, with_client
from ragagent.cli.output import Cell, Output, clean, duration, reporting, size, table

EXIT_FAILED = 1
WATCH_SECONDS = 0.5
STATUSES = ("queued", "parsing", "embedding", "publishing", "failed", "cancelled")
OVER = ("completed", "failed", "cancelled")

_PATH = "/v1/ragagent/jobs"
_HEADER = ("JOB", "STATUS", "FILE", "STORE", "SIZE", "CHUNKS", "%", "TRIES", "SINCE", "WORKER", "LAST ERROR")


@click.group()
def jobs() -> None:
    """Watch, retry and cancel what is being taken in."""


@jobs.command("ls")
@click.option("--store", metavar="NAME", help="Of this store alone.")
@click.option("--status", type=click.Choice(STATUSES), help="In this state alone.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@reporting
@with_client
def ls(store: str | None, status: str | None, limit: int, out: Output, client: Client) -> None:
    """List what is under way, failed or was cancelled."""
    wanted = {"store": store, "status": status}
    found, has_more = _listed(client, limit, {key: value for key, value in wanted.items() if value})
    if out.as_json:
        out.document({"object": "list", "data": found, "has_more": has_more})
    elif found:
        out.line(table(_HEADER, [_row(job) for job in found]))
        if has_more:
            out.line(f"... and more than these {limit}; see --limit.")
    else:
        out.line("Nothing is under way, and nothing has failed.")


@jobs.command("show")
@click.argument("job_id", metavar="JOB")
@reporting
@with_client
def show(job_id: str, out: Output, client: Client) -> None:
    """Show one job."""
    _print(out, client.get(f"{_PATH}/{segment(job_id)}"))


@jobs.command("retry")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@reporting
@with_client
def retry(job_ids: Sequence[str], out: Output, client: Client) -> None:
    """Queue again what failed or was cancelled.

    What waits for its next attempt has it now.
    """
    _each(out, client, "retry", job_ids)


@jobs.command("cancel")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@reporting
@with_client
def cancel(job_ids: Sequence[str], out: Output, client: Client) -> None:
    """Give documents up that are not stored yet."""
    _each(out, client, "cancel", job_ids)


@jobs.command("watch")
@click.argument("job_id", metavar="[JOB]", required=False)
@reporting
@with_client
def watch(job_id: str | None, out: Output, client: Client) -> None:
    """Watch one job, or the whole queue, until it is over.

    With --json a document per line. Exit code 1: the job failed or was cancelled.
    """
    path = f"{_PATH}/{segment(job_id)}" if job_id else "/v1/ragagent/queue"
    last: JSON = {}
    for last in _changes(client, path):
        if out.as_json:
            out.row(last)
        else:
            _over_itself(_progress(last) if job_id else _queue(last), is_last=_is_over(last))
    if last.get("status") in ("failed", "cancelled"):
        click.get_current_context().exit(EXIT_FAILED)


def _changes(client: Client, path: str) -> Iterator[JSON]:
    """Yield what is there, and again whenever it differs, until it is over."""
    before: JSON | None = None
    while True:
        found = client.get(path)
        if found != before:
            yield found
        if _is_over(found):
            return
        before = found
        time.sleep(WATCH_SECONDS)


def _is_over(found: Mapping[str, Any]) -> bool:
    if found["object"] == "ragagent.job":
        return found["status"] in OVER
    return not any(found["stages"].values())


def _over_itself(text: str, *, is_last: bool) -> None:
    """Print a line in the place of the one before, where a person watches; else one below the other."""
    if sys.stdout.isatty():
        click.echo(f"\r\x1b[K{text}", nl=is_last)
    else:
        click.echo(text)


def _progress(job: Mapping[str, Any]) -> str:
    chunks, error = job["chunks"], job["last_error"]
    parts = [job["id"], job["filename"], job["status"], f"{job['percent']:.0f} %"]
    if chunks["total"]:
        parts.append(f"{chunks['done']} of {chunks['total']} chunks")
    if error:
        parts.append(error["message"])
    return clean(" · ".join(parts))


def _queue(found: Mapping[str, Any]) -> str:
    stages = ", ".join(f"{count} {stage}" for stage, count in found["stages"].items() if count) or "nothing waits"
    rate = f"{found['documents_per_second']:g} documents/s"
    return f"{stages} · {size(found['bytes'])} · oldest {duration(found['oldest_age_seconds'])} · {rate}"


def _listed(client: Client, limit: int, wanted: Mapping[str, str]) -> tuple[list[JSON], bool]:
    found: list[JSON] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(_PATH, limit=min(limit - len(found), 100), **wanted, **cursor)
        found += page["data"]
        if not page["has_more"] or len(found) >= limit:
            return found, page["has_more"]
        cursor = {"after": page["last_id"]}


def _each(out: Output, client: Client, verb: str, job_ids: Sequence[str]) -> None:
    done = [client.post(f"{_PATH}/{segment(job_id)}/{verb}", {}) for job_id in job_ids]
    if out.as_json:
        out.document({"object": "list", "data": done})
    else:
        out.line(table(_HEADER, [_row(job) for job in done]))


def _print(out: Output, job: JSON) -> None:
    if out.as_json:
        out.document(job)
        return
    out.line(table(_HEADER[:-1], [_row(job)[:-1]]))
    if error := job["last_error"]:
        out.line(clean(f"last error: {error['message']} ({error['code']})"))
    if retry_at := job["retry_at"]:
        out.line(f"next attempt: in {duration(max(retry_at - time.time(), 0))}")


def _row(job: Mapping[str, Any]) -> Sequence[Cell]:
    chunks, worker = job["chunks"], job["worker"]
    return (
        job["id"],
        job["status"],
        job["external_id"] or job["filename"],
        job["vector_store_id"],
        size(job["bytes"]),
        f"{chunks['done']}/{chunks['total']}" if chunks["total"] else None,
        int(job["percent"]),
        job["attempts"],
        duration(max(time.time() - job["since"], 0)),
        f"{worker['pid']}{' (stuck)' if worker['is_stuck'] else ''}" if worker else None,
        (job["last_error"] or {}).get("message"),
    )
