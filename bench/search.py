"""Search by size: recall, latency, throughput, memory and filters, of stores from ten thousand chunks to a million.

    python bench/search.py                          10,000 and 100,000 chunks: a few minutes
    python bench/search.py --million                ... and 1,000,000; the first time a quarter of an hour more
    python bench/search.py --only legs served       some of the sections
    python bench/search.py --json search.json && python bench/plot.py search.json bench/search.png

Stores are made once and kept in bench/.corpora (see prepared.py); texts and questions are corpus.py's. A ratio compares
what was measured by turns in one run; times alone belong to the machine. `!` marks what misses its target.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import arguments
import corpus
from prepared import prepare
from report import Report
from searching import bare, batching, contention, kinds, legs, served
from searching.questions import questions

MILLION = 1_000_000
SECTIONS = ("legs", "served", "filters", "contention", "kinds", "batching")


def main() -> int:
    options = _options()
    texts = corpus.load()
    sizes = sorted({*options.sizes, *([MILLION] if options.million else [])})
    report = Report()
    stores = []
    for size in sizes:
        print(f"{size:>10,}  {texts.described(size)}", flush=True)
        stores.append(prepare(texts, size))
        bare.index(texts, size)
    if options.prepare:
        return 0
    asked = questions(texts, options.queries)
    if "legs" in options.only:
        legs.measure(report, stores, asked)
    for store in stores:
        if "served" in options.only:
            served.measure(report, texts, store, asked)
        if "filters" in options.only:
            served.filters(report, texts, store, asked)
        if "contention" in options.only:
            contention.measure(report, texts, store, asked)
    if "batching" in options.only:
        asyncio.run(batching.measure(report, texts, sizes[-1], asked))
    if "kinds" in options.only:
        kinds.measure(report, texts, sizes[-1], asked)
    print(f"\n{report.machine}\n\n{report.table()}")
    if options.json:
        report.write(options.json)
    missed = report.failures()
    print(f"\n{len(missed)} of {sum(one.holds is not None for one in report.measurements)} targets missed")
    return 0


def _options() -> argparse.Namespace:
    parser = arguments.parser(__doc__, SECTIONS)
    parser.add_argument("--queries", type=int, default=400, help="questions of each measurement")
    parser.add_argument("--prepare", action="store_true", help="make the stores, and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
