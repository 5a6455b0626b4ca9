"""Ingest: how fast texts come in, how soon a search sees them, and what that costs as the store grows.

    python bench/ingest.py                  beside 10,000 and 100,000 chunks: a few minutes
    python bench/ingest.py --million        ... and 1,000,000
    python bench/ingest.py --only rates     one of the sections

The built-in embedder, two workers, the defaults of the configuration. `rates` and `searchable` begin with an empty
store; `publish` and `written` write to copies of the stores that search.py uses (see prepared.py).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import arguments
import client
import corpus
import machine
from corpus import CACHE, Corpus
from ingesting.load import Loader, new_store
from ingesting.written import watching
from prepared import prepare
from ragagent import config_file
from report import Report
from server import Running, running

MILLION = 1_000_000
SECTIONS = ("rates", "searchable", "publish", "written")

TOGETHER = 500  # documents in a large request
CONNECTIONS = 2
PER_FILE = 20  # texts
FASTER = 5.0  # than one by one, a chunk
QUERIES_A_SECOND = 50.0
LOAD_TOGETHER = 100  # documents in a request of the load beside single upserts
PAUSE_SECONDS = 0.05
REST_SECONDS = 600.0


def main() -> int:
    options = _options()
    texts = corpus.load()
    sizes = sorted({*options.sizes, *([MILLION] if options.million else [])})
    report = Report()
    if "rates" in options.only:
        rates(report, texts, options.chunks, options.singles)
    if "searchable" in options.only:
        searchable(report, texts, options.chunks, options.singles)
    for size in sizes:
        if {"publish", "written"} & set(options.only):
            grown(report, texts, size, options)
    if "publish" in options.only:
        for size in sizes[1:]:
            ratio = report.value(size, "single upsert, p50") / report.value(sizes[0], "single upsert, p50")
            report.add(size, f"single upsert, p50 over that at {sizes[0]:,}", ratio, "x")
    print(f"\n{report.machine}\n\n{report.table()}")
    if options.json:
        report.write(options.json)
    return 0


def rates(report: Report, texts: Corpus, count: int, singles: int) -> None:
    """Chunks a second in each way, into a store of its own each."""
    given = list(texts.texts(count))
    files = ["\n\n".join(given[first : first + PER_FILE]) for first in range(0, count, PER_FILE)]
    with fresh() as started:

        def rate(name: str, loader: Loader, seconds: float) -> float:
            chunks = chunk_count(started, loader.store)
            report.add(0, f"{name}, chunks/s", chunks / seconds)
            return chunks / seconds

        single = Loader(started, new_store(started, "single"))
        one = rate("one by one", single, sum(single.one_by_one(0, given[:singles])))
        several = Loader(started, new_store(started, "several"))
        rate("one by one, 8 connections", several, several.bulk(given[: 4 * singles], 1, 8))
        bulk = Loader(started, new_store(started, "bulk"))
        all_ = rate(f"{TOGETHER} in a request", bulk, bulk.bulk(given, TOGETHER, CONNECTIONS))
        report.add(0, f"{TOGETHER} in a request / one by one", all_ / one, "x", at_least=FASTER)
        batch = Loader(started, new_store(started, "batch"))
        batched = rate(f"files of {PER_FILE} texts, in batches", batch, batch.files(files, CONNECTIONS))
        report.add(0, "files in batches / one by one", batched / one, "x", at_least=FASTER)


def searchable(report: Report, texts: Corpus, count: int, singles: int) -> None:
    """From sending one text to the answer that says a search sees it; each is searched for, to hold it to that."""
    given = list(texts.texts(count + 2 * singles))
    with fresh() as started:
        loader = Loader(started, new_store(started, "searchable"))
        loader.bulk(given[:count], TOGETHER, CONNECTIONS)
        machine.wait_until_quiet(started.indexer(), REST_SECONDS)
        for name, load in (("idle", contextlib.nullcontext()), ("loaded", _load(started, loader, given))):
            mine = Loader(started, loader.store, f"single-{name}")
            with load:
                seconds, missing = _searched(mine, given[count : count + singles])
            report.add(count, f"{name}: searchable after, p50", machine.percentile(seconds, 0.5), "ms")
            report.add(count, f"{name}: searchable after, p99", machine.percentile(seconds, 0.99), "ms")
            report.add(count, f"{name}: of {singles}, not found then", missing, at_most=0)


def grown(report: Report, texts: Corpus, size: int, options: argparse.Namespace) -> None:
    """Single upserts, then a load, into a store that holds `size` chunks."""
    with prepare(texts, size).copy() as copied, running(copied.path, RAGAGENT_SERVER__WORKERS="2") as started:
        loader, indexer = Loader(started, copied.store, "more"), started.indexer()
        given = list(texts.texts(options.singles + options.chunks, size))
        loader.one_by_one(10**9, given[:5])  # the first publish opens the store
        if "publish" in options.only:
            used = machine.cpu_seconds(indexer)
            with watching(indexer, copied.index) as written:
                seconds = loader.one_by_one(size, given[: options.singles])
            report.add(size, "single upsert, p50", machine.percentile(seconds, 0.5), "ms")
            report.add(size, "single upsert, p99", machine.percentile(seconds, 0.99), "ms")
            used = (machine.cpu_seconds(indexer) - used) / options.singles * 1000
            report.add(size, "single upsert, indexer's processor time", used, "ms")
            report.add(size, "single upsert, written by the indexer", written.total / options.singles / 1000, "kB")
            report.add(size, "single upsert, of it index", written.index / options.singles / 1000, "kB")
        if "written" in options.only:
            new = given[options.singles :]
            dimension = config_file.load().embedder.dimension
            payload = sum(len(text.encode()) for text in new) + len(new) * 4 * dimension
            used = machine.cpu_seconds(indexer)
            with watching(indexer, copied.index) as written:
                seconds_to_load = Loader(started, copied.store, "load").bulk(new, TOGETHER, CONNECTIONS)
                machine.wait_until_quiet(indexer, REST_SECONDS, patient=False)
            report.add(size, f"load of {len(new):,}, chunks/s", len(new) / seconds_to_load)
            used = (machine.cpu_seconds(indexer) - used) / len(new) * 1e6
            report.add(size, "load, indexer's processor time a chunk", used, "us")
            report.add(size, "load, written by the indexer / text and vectors", written.total / payload, "x")
            report.add(size, "load, written to the index / text and vectors", written.index / payload, "x")


def _searched(loader: Loader, texts: Sequence[str]) -> tuple[list[float], int]:
    seconds, missing = [], 0
    connection = client.Connection(loader.started.port)
    for number, text in enumerate(texts):
        name = f"{loader.prefix}-{number}"
        request = loader.upsert(number, [text])
        begun = time.perf_counter()
        connection.post(request)
        seconds.append(time.perf_counter() - begun)
        found = json.loads(connection.post(client.search(loader.store, text, max_num_results=50)))["data"]
        missing += name not in {item["filename"] for item in found}
        time.sleep(PAUSE_SECONDS)
    connection.close()
    return seconds, missing


@contextlib.contextmanager
def _load(started: Running, loader: Loader, texts: Sequence[str]) -> Iterator[None]:
    """Keep asking and loading: queries at a steady rate, and texts in requests of a hundred, into the same store."""
    is_over = threading.Event()
    queries = [client.search(loader.store, text[:80]) for text in itertools.islice(texts, 200)]
    asking = threading.Thread(
        target=lambda: client.paced(started.port, queries, QUERIES_A_SECOND, lambda: not is_over.is_set())
    )
    asking.start()
    try:
        with Loader(started, loader.store, "beside").running(texts, LOAD_TOGETHER):
            yield
    finally:
        is_over.set()
        asking.join()


@contextlib.contextmanager
def fresh() -> Iterator[Running]:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fresh-", dir=CACHE) as directory:
        with running(Path(directory), RAGAGENT_SERVER__WORKERS="2") as started:
            yield started


def chunk_count(started: Running, store: str) -> int:
    """Return how many chunks the store's texts came to."""
    with contextlib.closing(sqlite3.connect(f"file:{started.data_dir}/ragagent.db?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM chunks WHERE store_id = ?", (store,)).fetchone()[0])


def _options() -> argparse.Namespace:
    parser = arguments.parser(__doc__, SECTIONS)
    parser.add_argument("--chunks", type=int, default=10_000, help="texts of each load")
    parser.add_argument("--singles", type=int, default=200, help="texts stored one by one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
