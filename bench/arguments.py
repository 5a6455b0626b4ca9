"""The options that the measurements by size share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

SIZES = (10_000, 100_000)


def parser(description: str | None, sections: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with what both scripts take; each adds its own."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sizes", type=_sizes, default=SIZES, help="chunks, as in 10000,100000")
    made.add_argument("--million", action="store_true", help="add 1,000,000")
    made.add_argument("--only", nargs="+", choices=sections, default=sections, metavar="SECTION", help=str(sections))
    made.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there, too")
    return made


def _sizes(given: str) -> tuple[int, ...]:
    return tuple(int(size) for size in given.split(","))
