"""`ragagent status`: the processes and the stores of a running server, from its control socket."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ragagent.cli import fleet
from ragagent.cli.control import asked
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Cell, Output, duration, reporting, size, table
from ragagent.config import Data

_PROCESS = (
    *("PROCESS", "PID", "RELEASE", "STATE", "AGE", "HEARTBEAT", "PSS"),
    *("IN FLIGHT", "CONNECTIONS", "REQUESTS", "RESTARTS"),
)


@click.command()
@reporting
@with_data
def status(out: Output, data: Data) -> None:
    """Show the supervisor, its workers, the indexer and the stores."""
    reply = asked(data, "status")
    if out.as_json:
        out.document(reply)
        return
    for line in _lines(reply, time.time()):
        out.line(line)


def _lines(reply: Mapping[str, Any], now: float) -> Iterator[str]:
    yield from _supervisor(reply, now)
    yield ""
    yield table(_PROCESS, [_process(entry) for entry in fleet.processes(reply)])
    if notes := list(fleet.notes(reply)):
        yield ""
        yield from notes
    if queue := reply.get("queue"):
        yield ""
        oldest = f", the oldest for {duration(queue['oldest_age_seconds'])}" if queue["documents"] else ""
        yield f"queue: {queue['documents']} documents ({size(queue['bytes'])}) wait{oldest}"
    if reply["stores"]:
        yield ""
        yield table(fleet.STORE, [fleet.store(entry) for entry in reply["stores"]])
    if reply.get("store_count", 0) > len(reply["stores"]):
        yield f"{reply['store_count']} stores in all; 'ragagent index ls' lists them."


def _supervisor(reply: Mapping[str, Any], now: float) -> Iterator[str]:
    found = reply["supervisor"]
    state = click.style(found["state"], fg=fleet.COLOURS.get(found["state"]))
    yield " · ".join((f"supervisor pid {found['pid']}", state, *fleet.headline(reply, now)))
    memory = fleet.memory(found)
    parts = (f"ragagent {found['version']}", reply.get("bind"), f"supervisor's PSS {memory}" if memory else None)
    yield " · ".join(part for part in parts if part)
    if trouble := fleet.trouble(reply):
        yield trouble


def _process(entry: Mapping[str, Any]) -> Sequence[Cell]:
    stats = entry.get("stats", {})
    return (
        fleet.name(entry),
        entry["pid"],
        entry["release"],
        entry["state"],
        duration(entry["age_seconds"]),
        duration(entry["heartbeat_age_seconds"]),
        fleet.memory(entry),
        stats.get("in_flight"),
        stats.get("connections"),
        stats.get("requests"),
        entry["restarts"],
    )
