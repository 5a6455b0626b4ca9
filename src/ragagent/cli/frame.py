"""One picture of `ragagent top`: two samples and a size go in, lines that fit come out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from ragagent.cli import fleet
from ragagent.cli.output import Cell, aligned, cut, duration, span
from ragagent.cli.sample import Rates, Reply, Sample

_HEADER = (
    *("PROCESS", "PID", "RELEASE", "STATE", "AGE", "CPU %", "PSS", "IN FLIGHT"),
    *("CONNS", "REQ/S", "BEAT", "LAG", "RESTARTS"),
)
# What a narrow terminal does without, first to go first.
_SPARE = ("LAG", "RELEASE", "AGE", "CONNS", "BEAT", "PID", "RESTARTS")
_STORES_LEAST = 3  # lines, below which no store is shown: the gap, the header and one of them


def frame(sample: Sample, previous: Sample | None, width: int, height: int, lost: str = "") -> list[str]:
    """Return at most `height` lines of at most `width` columns. `lost`: why there is nothing newer than the sample.

    Where there is not room for all, the stores go first, then the last processes: what is out of order stays.
    """
    rates = Rates.between(previous if not lost else None, sample)
    head = _head(sample, rates, width, lost)
    notes = _notes(sample.reply, width)[: max((height - len(head)) // 2, 0)]
    body = _body(sample.reply, rates, width, height - len(head) - len(notes), bool(lost))
    stores = _stores(sample.reply, width, height - len(head) - len(notes) - len(body))
    return [*head, *body, *notes, *stores][: max(height, 0)]


def _head(sample: Sample, rates: Rates, width: int, lost: str) -> list[str]:
    state = sample.reply["supervisor"]["state"]
    colour = "red" if lost else fleet.COLOURS.get(state)
    warnings = [text for text in (lost, fleet.trouble(sample.reply)) if text]
    return [
        click.style(cut(_first(sample, rates, "lost" if lost else state), width), fg=colour, bold=True),
        cut(_second(sample, rates), width),
        *(click.style(cut(text, width), fg="red") for text in warnings),
        "",
    ]


def _first(sample: Sample, rates: Rates, state: str) -> str:
    busy = f"{rates.total:.1f} requests/s" if rates.total is not None else ""
    clock = time.strftime("%H:%M:%S", time.localtime(sample.at))
    return _joined(state, *fleet.headline(sample.reply, sample.at), busy, clock)


def _second(sample: Sample, rates: Rates) -> str:
    found = sample.reply["supervisor"]
    cpu, memory = rates.cpu_percent.get(found["pid"]), fleet.memory(found)
    return _joined(
        f"supervisor pid {found['pid']}",
        f"CPU {cpu:.1f} %" if cpu is not None else "",
        f"PSS {memory}" if memory is not None else "",
        f"ragagent {found['version']}",
        sample.reply.get("bind", ""),
    )


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _notes(reply: Reply, width: int) -> list[str]:
    lines = [click.style(cut(note, width), fg="yellow") for note in fleet.notes(reply)]
    return ["", *lines] if lines else []


def _body(reply: Reply, rates: Rates, width: int, height: int, is_old: bool) -> list[str]:
    """Return a line for each process that there is room for, and say how many more there are."""
    entries = fleet.processes(reply)
    header, *lines = _narrowed([_process(entry, rates) for entry in entries], width)
    styled = [_styled(line, entry["state"], is_old) for line, entry in zip(lines, entries, strict=True)]
    if len(styled) >= height:
        shown = max(height - 2, 0)
        styled = [*styled[:shown], cut(f"… and {len(styled) - shown} more", width)]
    return [click.style(header, dim=True), *styled]


def _styled(line: str, state: str, is_old: bool) -> str:
    if is_old:
        return click.style(line, dim=True)
    return line if state == "running" else click.style(line, fg=fleet.COLOURS.get(state, "yellow"))


def _narrowed(rows: Sequence[Sequence[Cell]], width: int) -> list[str]:
    """Return the table without as many of its columns as it takes to fit."""
    kept = list(range(len(_HEADER)))
    for name in (*_SPARE, None):
        lines = aligned([_HEADER[at] for at in kept], [[row[at] for at in kept] for row in rows])
        if name is None or max(map(span, lines)) <= width:
            break
        kept.remove(_HEADER.index(name))
    return [cut(line, width) for line in lines]


def _process(entry: Reply, rates: Rates) -> Sequence[Cell]:
    stats = entry.get("stats", {})
    return (
        fleet.name(entry),
        entry["pid"],
        entry["release"],
        entry["state"],
        duration(entry["age_seconds"]),
        rates.cpu_percent.get(entry["pid"]),
        fleet.memory(entry),
        stats.get("in_flight"),
        stats.get("connections"),
        rates.requests.get(entry["pid"]),
        duration(entry["heartbeat_age_seconds"]),
        duration(stats.get("loop_lag_seconds")),
        entry["restarts"],
    )


def _stores(reply: Reply, width: int, height: int) -> list[str]:
    if not reply["stores"] or height < _STORES_LEAST:
        return []
    header, *lines = (cut(line, width) for line in aligned(fleet.STORE, [fleet.store(s) for s in reply["stores"]]))
    return ["", click.style(header, dim=True), *lines[: height - 2]]
