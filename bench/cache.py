"""The cache, leg by leg, against aiocache's own backends and decorators and cashews, in the same run.

    python bench/cache.py                              all legs: three minutes
    python bench/cache.py --only ops policy            some of them
    python bench/cache.py --seconds 60                 the hit ratio of a whole minute after a reload
    python bench/cache.py --json cache.json

    ops      one operation in each tier          policy   hit ratios of lru and 2q
    batch    many look-ups in Redis at once      flight   one computation for all processes
    warm     hit ratio after a reload                semantic false hits of each gate
    faults   what each fault of Redis costs

A ratio compares what was measured by turns in one run; times alone belong to the machine. `!` marks what misses its
target. Every leg that needs a Redis starts one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from caching import batch, faults, flight, operations, policy, rivals, semantic, warm
from report import Report

Leg = Callable[[Report, argparse.Namespace], None]

LEGS: Mapping[str, Leg] = {
    "ops": lambda report, _: asyncio.run(operations.measure(report)),
    "policy": lambda report, _: policy.measure(report),
    "batch": lambda report, _: asyncio.run(batch.measure(report)),
    "flight": lambda report, _: flight.measure(report),
    "warm": lambda report, options: warm.measure(report, options.seconds),
    "semantic": lambda report, _: semantic.measure(report),
    "faults": lambda *_: faults.run(),
}


def main() -> int:
    options = _options()
    report = Report()
    if not rivals.HAS_CASHEWS:
        report.note(rivals.WITHOUT_CASHEWS)
    for name in options.only:
        LEGS[name](report, options)
    print(f"\n{report.machine}\n\n{report.table()}")
    if options.json:
        report.write(options.json)
    missed = report.failures()
    print(f"\n{len(missed)} of {sum(one.holds is not None for one in report.measurements)} targets missed")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=LEGS, default=list(LEGS), metavar="LEG", help=", ".join(LEGS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each window of the leg `warm`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
