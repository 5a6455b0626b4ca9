"""`ragagent status`: the processes and the stores of a running server, from its control socket."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Cell, Output, duration, reporting, table
from ragagent.config import Data
from ragagent.errors import Unavailable
from ragagent.supervisor import control

TIMEOUT_SECONDS = 10.0

_PROCESS = ("PROCESS", "PID", "RELEASE", "STATE", "AGE", "HEARTBEAT", "IN FLIGHT", "REQUESTS", "RESTARTS", "LAST EXIT")
_STORE = ("STORE", "NAME", "GENERATION", "SEQ", "ROWS", "DELTA")
_COLOURS = {"running": "green", "backoff": "yellow", "stopping": "yellow", "fatal": "red"}


@click.command()
@reporting
@with_data
def status(out: Output, data: Data) -> None:
    """Show the supervisor, its workers, the indexer and the stores."""
    reply = asked(data, "status", TIMEOUT_SECONDS)
    if out.as_json:
        out.document(reply)
        return
    for line in _lines(reply, time.time()):
        out.line(line)


def asked(data: Data, command: str, timeout: float | None) -> dict[str, Any]:
    """Return the supervisor's reply. Raises Unavailable, saying how to start one."""
    try:
        return control.request(data.path, command, timeout)
    except Unavailable as exc:
        hint = "Start it with 'ragagent serve', or name its directory with --data or --config."
        raise Unavailable(f"{exc.message} {hint}") from exc


def _lines(reply: Mapping[str, Any], now: float) -> Iterator[str]:
    yield _supervisor(reply["supervisor"], reply.get("bind", ""), now)
    yield ""
    processes = [*reply["workers"], *([reply["indexer"]] if reply["indexer"] else [])]
    yield table(_PROCESS, [_process(entry) for entry in processes])
    if reply["stores"]:
        yield ""
        yield table(_STORE, [_store(entry) for entry in reply["stores"]])


def _supervisor(found: Mapping[str, Any], bind: str, now: float) -> str:
    reloads = found["reloads"]
    failed = f", {reloads['failed']} failed" if reloads["failed"] else ""
    parts = [
        f"supervisor pid {found['pid']}",
        click.style(found["state"], fg=_COLOURS.get(found["state"])),
        f"release {found['release']}",
        f"up {duration(max(now - found['started_at'], 0.0))}",
        f"reloads {reloads['ok']}{failed}",
        f"ragagent {found['version']}",
        bind,
    ]
    last = f"\nlast failed reload: {reloads['last_error']}" if reloads["last_error"] else ""
    return " · ".join(part for part in parts if part) + last


def _process(entry: Mapping[str, Any]) -> Sequence[Cell]:
    stats = entry.get("stats", {})
    return (
        f"worker {entry['slot']}" if entry["role"] == "worker" else entry["role"],
        entry["pid"],
        entry["release"],
        entry["state"],
        duration(entry["age_seconds"]),
        duration(entry["heartbeat_age_seconds"]),
        stats.get("in_flight"),
        stats.get("requests"),
        entry["restarts"],
        entry["last_exit"],
    )


def _store(entry: Mapping[str, Any]) -> Sequence[Cell]:
    numbers = (entry.get(key) for key in ("generation", "seq", "rows", "delta_rows"))
    return (entry["id"], entry.get("name"), *numbers)
