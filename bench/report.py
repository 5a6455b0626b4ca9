"""Measurements as they come, a line each, and at the end as a table of sizes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
from reloading import table


@dataclass(frozen=True)
class Measurement:
    size: int  # chunks, or callers; 0: it has none
    name: str
    value: float
    unit: str
    target: str  # as in "<= 2"; empty: there is none
    holds: bool | None


class Report:
    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self.machine = machine.described()
        print(self.machine, flush=True)

    def add(
        self,
        size: int,
        name: str,
        value: float,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        target, holds = "", None
        if at_most is not None:
            target, holds = f"<= {at_most:g}", value <= at_most
        elif at_least is not None:
            target, holds = f">= {at_least:g}", value >= at_least
        one = Measurement(size, name, float(value), unit, target, holds)
        self.measurements.append(one)
        verdict = "" if holds is None else f"   {target}: {'holds' if holds else 'FAILS'}"
        print(f"{_size(size):>10}  {name:<52}{_shown(value):>10} {unit:<9}{verdict}", flush=True)

    def note(self, line: str) -> None:
        print(f"            {line}", flush=True)

    def value(self, size: int, name: str) -> float:
        return next(one.value for one in reversed(self.measurements) if (one.size, one.name) == (size, name))

    def table(self) -> str:
        """Return a row for each name, a column for each size, and what was to be reached."""
        sizes = sorted({one.size for one in self.measurements})
        rows = []
        for name in dict.fromkeys(one.name for one in self.measurements):
            of_name = {one.size: one for one in self.measurements if one.name == name}
            any_one = next(iter(of_name.values()))
            target = next((one.target for one in of_name.values() if one.target), "")
            cells = [_cell(of_name.get(size)) for size in sizes]
            rows.append([f"{name}, {any_one.unit}" if any_one.unit else name, *cells, target])
        return table.text(["", *map(_size, sizes), "target"], rows)

    def failures(self) -> list[Measurement]:
        return [one for one in self.measurements if one.holds is False]

    def write(self, path: Path) -> None:
        found = {"machine": self.machine, "measurements": [asdict(one) for one in self.measurements]}
        path.write_text(json.dumps(found, indent=1) + "\n")


def _size(size: int) -> str:
    return f"{size:,}" if size else ""


def _cell(one: Measurement | None) -> str:
    if one is None:
        return ""
    return f"{_shown(one.value)}{' !' if one.holds is False else ''}"


def _shown(value: float) -> str:
    if value == int(value) and abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
