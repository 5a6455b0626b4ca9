"""Draw what search.py has measured: latency, memory and index types against the size of the store.

    python bench/plot.py search.json bench/search.png

Needs matplotlib: pip install -e '.[bench]'.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

DPI = 150
Line = tuple[str, str, str]  # label, measurement, style

LATENCY: tuple[Line, ...] = (
    ("over HTTP, p99", "a query over HTTP, p99", "C3--"),
    ("over HTTP, p50", "a query over HTTP, p50", "C3-"),
    ("both legs, fused", "both legs, fused: p50", "C0-"),
    ("lexical leg", "lexical leg: p50", "C1-"),
    ("dense leg", "dense leg: p50", "C2-"),
)
MEMORY: tuple[Line, ...] = (
    ("4 workers", "4 workers, PSS", "C3-"),
    ("2 workers", "2 workers, PSS", "C1-"),
    ("1 worker", "1 worker, PSS", "C2-"),
    ("index on disk", "index on disk", "k--"),
)
KINDS: tuple[Line, ...] = (
    ("Flat (exact)", "Flat: p50", "k--"),
    ("HNSW", "HNSW: p50", "C0-"),
    ("HNSW over SQ8", "HNSW SQ8: p50", "C2-"),
    ("IVF", "IVF: p50", "C1-"),
)


PANELS = (
    ("One query, uncached", "milliseconds", LATENCY),
    ("Memory of all workers (PSS)", "MB", MEMORY),
    ("Index types, each at recall@10 of 0.95, p50", "milliseconds", KINDS),
)


def main() -> int:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    found = json.loads(source.read_text())
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12, "legend.fontsize": 10, "lines.markersize": 5})
    measured = {one["name"] for one in found["measurements"]}
    panels = [panel for panel in PANELS if any(name in measured for _, name, _ in panel[2])]
    figure = Figure(figsize=(5.3 * len(panels), 5.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, found, *panel)
    figure.text(0.005, -0.01, found["machine"].replace("\n", " · "), fontsize=7, color="0.4", va="top")
    figure.savefig(target, dpi=DPI, bbox_inches="tight")
    print(f"wrote {target}")
    return 0


def _draw(axes: Axes, found: dict[str, Any], title: str, unit: str, lines: tuple[Line, ...]) -> None:
    sizes: set[int] = set()
    for label, name, style in lines:
        points = sorted((one["size"], one["value"]) for one in found["measurements"] if one["name"] == name)
        if points:
            axes.plot(*zip(*points, strict=True), style, marker="o", label=label)
            sizes |= {size for size, _ in points}
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("chunks in the store")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(FixedLocator(sorted(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _short(size)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(_one_two_five))
    axes.tick_params(axis="y", which="minor", labelsize=8)
    axes.grid(which="major", alpha=0.4)
    axes.grid(which="minor", axis="y", alpha=0.15)
    if sizes:
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top * (top / bottom) ** 0.35)  # room for the legend
        axes.legend(loc="upper left", ncols=2)


def _one_two_five(value: float, _: float) -> str:
    """Label 2 and 5 of each decade; all of them would be too many, and a scale of less than one decade needs some."""
    digit = round(value / 10 ** math.floor(math.log10(value)))
    return f"{value:g}" if digit in (2, 5) else ""


def _short(size: float) -> str:
    if size >= 1e6:
        return f"{size / 1e6:g}M"
    return f"{size / 1e3:g}k" if size >= 1e3 else f"{size:g}"


if __name__ == "__main__":
    sys.exit(main())
