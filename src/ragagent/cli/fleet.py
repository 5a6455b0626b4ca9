"""What `status` and `top` both say of a server, in words: the supervisor, its processes, the stores.

A supervisor may be older or newer than the command line, so whatever it does not tell is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ragagent.cli.output import Cell, duration, flat, size

Reply = Mapping[str, Any]

STORE = ("STORE", "NAME", "GENERATION", "SEQ", "ROWS", "DELTA")
COLOURS = {"running": "green", "degraded": "yellow", "starting": "yellow", "stopping": "yellow", "fatal": "red"}

# How a process ends that was told to: after every reload, so it explains nothing.
_ORDERLY_EXIT = "exit code 0"
_PROBES = {"not_ready": "answers its probe that it is not ready", "no_answer": "does not answer its probe"}


def headline(reply: Reply, now: float) -> list[str]:
    """Return what is to be known first: is it up, since when, with how many workers, and did reloads fail?"""
    found = reply["supervisor"]
    failed = f", {found['reloads']['failed']} failed" if found["reloads"]["failed"] else ""
    wanted = found.get("workers_wanted")
    running = sum(entry["state"] == "running" for entry in reply["workers"])
    return [
        f"release {found['release']}",
        *([f"{running} of {wanted} workers"] if wanted is not None else []),
        f"up {duration(max(now - found['started_at'], 0.0))}",
        f"reloads {found['reloads']['ok']}{failed}",
    ]


def trouble(reply: Reply) -> str:
    """Return the reason of the last failed reload, in one line; empty when there is none."""
    last = reply["supervisor"]["reloads"]["last_error"]
    return f"last failed reload: {flat(last)}" if last else ""


def processes(reply: Reply) -> list[Reply]:
    """Return the workers, then the indexer."""
    return [*reply["workers"], *([reply["indexer"]] if reply.get("indexer") else [])]


def name(entry: Reply) -> str:
    return f"worker {entry['slot']}" if entry["role"] == "worker" else str(entry["role"])


def memory(entry: Reply) -> str | None:
    """Return the proportional share: what the process would give back, of memory that it has with others."""
    count = entry.get("pss_bytes")
    return size(count) if count is not None else None


def notes(reply: Reply) -> Iterator[str]:
    """Yield a line for everything about a process that a healthy one does not have."""
    for entry in processes(reply):
        for note in _notes(entry):
            yield f"{name(entry)}: {flat(note)}"


def _notes(entry: Reply) -> Iterator[str]:
    probe = entry.get("probe") or {}
    if (outcome := probe.get("outcome")) not in (None, "ok"):
        yield f"{_PROBES.get(outcome, outcome)} ({probe.get('failures', 0)} in a row)"
    if entry.get("worn"):
        yield f"about to be replaced: {entry['worn']}"
    if entry["last_exit"] not in (None, _ORDERLY_EXIT):
        yield f"last exit: {entry['last_exit']}"


def store(entry: Reply) -> Sequence[Cell]:
    numbers = (entry.get(key) for key in ("generation", "seq", "rows", "delta_rows"))
    return (entry["id"], entry.get("name"), *numbers)
