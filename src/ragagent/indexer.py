"""The indexer: the one process that writes derived data. It sleeps until a worker rings, or half a second.

One of the three places that wire. At a reload the new indexer is ready before the old one leaves, and then waits for
the writer's lock: acknowledged work meanwhile lies in SQLite.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from ragagent import names, telemetry
from ragagent.config import Config
from ragagent.engine import welcome
from ragagent.engine.catalog import Chunking
from ragagent.engine.conversations.forgetting import Forgetting
from ragagent.engine.doorbell import Door
from ragagent.engine.indexing.indexer import Indexer
from ragagent.engine.indexing.parsing.process import ParserProcess
from ragagent.engine.publishing.checking import Checker
from ragagent.engine.publishing.publisher import Publisher
from ragagent.engine.publishing.reembed import Reembedder
from ragagent.errors import EXIT_OK, Conflict, RagagentError
from ragagent.index import lock
from ragagent.index.manifest import Manifest
from ragagent.lifeline import Duty, Lifeline, attend
from ragagent.providers import registry
from ragagent.providers.base import Embedder
from ragagent.providers.embedders import Embedders
from ragagent.store import backlog, jobs, stores
from ragagent.store.database import Database, Transaction
from ragagent.types import EmbeddingSpace

log = logging.getLogger("ragagent.indexer")

LOCK_SECONDS = 60.0  # longer than any predecessor's grace
RETRY_SECONDS = 1.0
SHOWN_STORES = 20


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    return asyncio.run(_serve(config, slot, lifeline))


async def _serve(config: Config, slot: int, lifeline: Lifeline) -> int:
    running: list[Publisher] = []
    queue: dict[str, Any] = {}
    async with attend(lifeline, lambda: _stats(running, queue)) as duty, AsyncExitStack() as stack:
        telemetry.init(config.telemetry, role="indexer", slot=slot)
        stack.callback(telemetry.shutdown)
        database = Database.open(config.data.database)
        stack.callback(database.close)
        parser = ParserProcess(
            seconds=config.ingest.parse_seconds,
            memory_bytes=config.ingest.parse_memory_bytes,
            max_chars=config.ingest.max_text_chars,
        )
        stack.callback(parser.close)
        embedders = registry.embedders(config)
        stack.push_async_callback(embedders.aclose)
        lifeline.ready()
        if not await duty.told_to_serve():
            return EXIT_OK

        held = await anyio.to_thread.run_sync(lambda: lock.writer(config.data.index, wait_seconds=LOCK_SECONDS))
        stack.callback(held.close)
        door = Door(config.data.doorbell)
        stack.callback(door.close)
        publisher = Publisher(database, config.data.index, config.ingest)
        stack.push_async_callback(publisher.close)
        indexer = Indexer(database, publisher, parser, embedders, is_leaving=lambda: duty.leaving)
        stack.push_async_callback(indexer.close)
        running.append(publisher)
        _measure(database, publisher)
        lifeline.serving()
        await _welcome(config, database, embedders.default)
        await _tell_unserved(database, embedders)
        async with asyncio.TaskGroup() as tasks:  # If either ends with an error, so does the process.
            beside = [
                tasks.create_task(Reembedder(database, embedders).run()),
                tasks.create_task(Checker(database, config.data.index).run()),
                tasks.create_task(Forgetting(database, config.session).run()),
            ]
            await _work(indexer, door, duty, database, queue)
            for task in beside:
                task.cancel()
    return EXIT_OK


async def _work(indexer: Indexer, door: Door, duty: Duty, database: Database, queue: dict[str, Any]) -> None:
    while not duty.leaving:
        try:
            worked = await indexer.step()
            queue.update(await database.view(_queue))
        except RagagentError as exc:
            # A full disk or a busy database passes; what is queued stays queued. A bug ends the process instead.
            log.error("a step failed and will be tried again: %s", exc.message, exc_info=exc.__cause__)
            await anyio.sleep(RETRY_SECONDS)
            continue
        if not worked and not duty.leaving:
            await _bell_or_leave(door, duty)


async def _bell_or_leave(door: Door, duty: Duty) -> None:
    waits = [asyncio.ensure_future(door.wait()), asyncio.ensure_future(duty.told_to_leave())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def _welcome(config: Config, database: Database, embedder: Embedder) -> None:
    paths = [Path(name) for name in config.data.welcome]
    chunking = Chunking(config.ingest.chunk_tokens, config.ingest.chunk_overlap_tokens)
    if loaded := await database.update(lambda tx: welcome.load(tx, paths, embedder, chunking)):
        log.info("loaded %d files into the store '%s'", loaded, welcome.STORE)


async def _tell_unserved(database: Database, embedders: Embedders) -> None:
    """Say in the log which stores are refused from now on, and what can be done about it."""
    for space in await database.view(stores.spaces):
        holders = await database.view(partial(_names_in, space))
        try:
            embedders.of(*space, f"Each of {len(holders)} vector stores ({', '.join(holders[:SHOWN_STORES])})")
        except Conflict as exc:
            log.error("%s Until then they are refused.", exc.message)


def _names_in(space: EmbeddingSpace, tx: Transaction) -> list[str]:
    return stores.names_in(tx, space)


def _measure(database: Database, publisher: Publisher) -> None:
    def depth() -> int:
        with database.read() as tx:
            return jobs.depth(tx)

    def age() -> float:
        with database.read() as tx:
            return jobs.oldest_age(tx)

    def shown() -> list[Manifest]:
        # A label per store: thousands would drown the collector.
        return [manifest for _, manifest in publisher.manifests]

    telemetry.gauge(names.INGEST_QUEUE_DEPTH, depth)
    telemetry.gauge(names.INGEST_QUEUE_AGE, age)
    telemetry.gauge(names.INDEX_GENERATION, lambda: [({names.STORE_ID: m.store}, m.generation) for m in shown()])
    telemetry.gauge(names.INDEX_DELTA_ROWS, lambda: [({names.STORE_ID: m.store}, m.delta_rows) for m in shown()])


def _queue(tx: Transaction) -> Mapping[str, Any]:
    waiting = backlog.load(tx)
    age = round(jobs.oldest_age(tx), 1)
    return {"documents": waiting.documents, "bytes": waiting.bytes, "oldest_age_seconds": age}


def _stats(running: Sequence[Publisher], queue: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `ragagent status` shows of the queue and the stores."""
    return {
        "queue": queue,
        "store_count": sum(publisher.store_count for publisher in running),
        "stores": [
            {
                "id": manifest.store,
                "name": name,
                "seq": manifest.seq,
                "generation": manifest.generation,
                "rows": manifest.rows,
                "delta_rows": manifest.delta_rows,
            }
            for publisher in running
            for name, manifest in publisher.manifests
        ],
    }
