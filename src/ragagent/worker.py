"""A worker: opens everything for itself after the fork, answers on the inherited sockets, drains, leaves.

One of the three places that wire. Read `_open` for what a worker is made of, and `_serve` for its life.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from ragagent import names, telemetry
from ragagent.api.app import build
from ragagent.api.services import Services
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.lookups import Lookups
from ragagent.cache.recipe import recipe
from ragagent.cache.tiered import TieredCache
from ragagent.cache.warming import Warming
from ragagent.config import Config
from ragagent.edge.server import Server
from ragagent.engine.access import Access
from ragagent.engine.answering.answer import Answerer
from ragagent.engine.answering.semantic import Semantic
from ragagent.engine.caches import Caches
from ragagent.engine.catalog import Catalog, Chunking
from ragagent.engine.conversations.conversations import Conversations
from ragagent.engine.doorbell import Doorbell
from ragagent.engine.eraser import Eraser
from ragagent.engine.ingest import Ingest
from ragagent.engine.limiting.limiter import Limiter
from ragagent.engine.queue import Queue
from ragagent.engine.retrieval.retrieve import Retriever
from ragagent.errors import EXIT_OK, ConfigError
from ragagent.index.searchers import Searchers
from ragagent.lifeline import Lifeline, attend
from ragagent.limits.ledger import Ledger
from ragagent.providers import registry
from ragagent.remote import address
from ragagent.remote.bus import Bus
from ragagent.remote.connection import Remote
from ragagent.store import jobs, keys
from ragagent.store.database import Database
from ragagent.store.session_locks import SessionLocks

BEHIND_SECONDS = 60.0  # a job that waits longer says that the indexer does not keep up


def prepare(config: Config) -> None:
    """Load, before the fork, what all children share in memory; raises ConfigError for what cannot work."""
    telemetry.check(config.telemetry)
    if config.redis.url:
        address.parse(config.redis.url)
    if config.session.store == "redis" and not config.redis.url:
        raise ConfigError("Config key 'session.store' has value 'redis', and 'redis.url' names none.")
    registry.preload([config.embedder, *config.embedders.values()])
    recipe()


def main(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    return asyncio.run(_serve(config, slot, listeners, lifeline))


async def _serve(config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    running: list[Server] = []
    opened: list[Services] = []

    def on_probe(connection: socket.socket) -> None:
        running[0].attach(connection)  # Probes come to workers that serve.

    async with attend(lifeline, lambda: _stats(running, opened), on_probe) as duty, AsyncExitStack() as stack:
        telemetry.init(config.telemetry, role="worker", slot=slot)
        stack.callback(telemetry.shutdown)
        services, warming = await _open(config, slot, stack)
        opened.append(services)
        server = Server(build(services), listeners, config.server)
        await server.startup()
        running.append(server)
        lifeline.ready()
        if await duty.told_to_serve():
            await server.accept()
            lifeline.serving()
            if config.cache.enabled:
                warming.start()
            await duty.told_to_leave()
        await asyncio.gather(server.drain(), warming.leave())
        lifeline.finished()
    return EXIT_OK


async def _open(config: Config, slot: int, stack: AsyncExitStack) -> tuple[Services, Warming]:
    """Open every part; the stack closes them in reverse when the worker leaves."""
    database = Database.open(config.data.database)
    stack.callback(database.close)
    # At the very first start a worker is quicker than the indexer: an empty index, then, not a missing one.
    config.data.index.mkdir(exist_ok=True)
    searchers = Searchers(config.data.index, ef_search=config.retrieval.ef_search)
    stack.callback(searchers.close)
    remote = await _open_remote(config, slot, stack)
    cache, warming, lookups = await _open_cache(config, remote, stack)
    embedders = registry.embedders(config)
    stack.push_async_callback(embedders.aclose)
    generator = registry.generator(config.generator)
    stack.push_async_callback(generator.aclose)
    ledger = Ledger(config.data.limits, remote, config.limits.on_redis_down, on_degraded=_count_degraded)
    limiter = Limiter(config.limits, ledger, on_refused=_count_limited)
    stack.push_async_callback(limiter.aclose)
    eraser = Eraser(database, cache, remote, Bus(remote) if remote is not None else None)
    await stack.enter_async_context(eraser)
    doorbell = Doorbell(config.data.doorbell, eraser.wake)
    stack.callback(doorbell.close)

    catalog = Catalog(
        database,
        searchers,
        embedders,
        Chunking(config.ingest.chunk_tokens, config.ingest.chunk_overlap_tokens),
    )
    conversations = Conversations(database, SessionLocks(config.data.session_locks), config.session, remote)
    await stack.enter_async_context(conversations.running())
    retriever = Retriever(database, searchers, embedders, cache, config.retrieval, config.cache)
    semantic = _open_semantic(config, cache, retriever, lookups, stack)
    caches = Caches(cache, lookups, eraser, semantic)
    caches.report()

    services = Services(
        config=config,
        access=_access(config, database),
        limiter=limiter,
        catalog=catalog,
        ingest=Ingest(database, searchers, catalog, doorbell, config.ingest, config.quota),
        queue=Queue(database, searchers, catalog, doorbell, config.ingest, config.quota),
        embedders=embedders,
        retriever=retriever,
        conversations=conversations,
        answerer=Answerer(
            retriever,
            generator,
            cache,
            config.retrieval,
            life=Life.of(config.cache, config.cache.answer_seconds),
            semantic=semantic,
        ),
        caches=caches,
        checks=partial(_checks, config, database, catalog, remote, semantic),
        started_at=int(time.time()),
    )
    return services, warming


async def _open_remote(config: Config, slot: int, stack: AsyncExitStack) -> Remote | None:
    if not config.redis.url:
        return None
    remote = Remote(
        config.redis.url,
        connections=config.redis.connections,
        timeout_seconds=config.redis.timeout_seconds,
        client_name=f"ragagent-worker-{slot}",
    )
    remote.report()
    return await stack.enter_async_context(remote)


async def _open_cache(
    config: Config, remote: Remote | None, stack: AsyncExitStack
) -> tuple[TieredCache, Warming, Lookups]:
    local, lookups = LocalCache(config.cache.local_bytes, config.cache.policy), Lookups()
    cache = TieredCache(local, remote, config.cache.enabled, on_event=lookups.note)
    stack.push_async_callback(cache.aclose)
    warming = Warming(local, config.data.warm, lambda: cache.epoch, cache.tags)
    stack.push_async_callback(warming.aclose)
    return cache, warming, lookups


def _open_semantic(
    config: Config, cache: TieredCache, retriever: Retriever, lookups: Lookups, stack: AsyncExitStack
) -> Semantic | None:
    if not config.semantic.enabled:
        return None
    semantic = Semantic(cache, retriever, config.semantic, on_event=lookups.note)
    stack.push_async_callback(semantic.aclose)
    return semantic


async def _checks(
    config: Config, database: Database, catalog: Catalog, remote: Remote | None, semantic: Semantic | None
) -> Mapping[str, Any]:
    """Return how well each part does: what /readyz tells."""
    told = {"semantic": semantic.state} if semantic is not None else {}
    return {
        **told,
        "database": "ok",
        "index": "ok" if config.data.index.is_dir() else "missing",
        "indexer": "ok" if await database.view(jobs.oldest_age) < BEHIND_SECONDS else "behind",
        "embedders": _embedders_state(await catalog.unserved()),
        "redis": remote.state if remote else "off",
    }


def _access(config: Config, database: Database) -> Access:
    """Keys are optional on loopback. Beyond it they are required, and without one nobody could come in."""
    required = config.auth.required == "always" or not config.server.is_loopback
    if not config.server.is_loopback:
        with database.read() as tx:
            if not keys.active(tx):
                raise ConfigError(
                    f"Refusing to bind {config.server.bind} without API keys: everyone who reaches the port could read "
                    "and delete everything. Create one first: ragagent keys create NAME"
                )
    return Access(database, keys.pepper(config.data.pepper), required=required)


def _count_limited(policy: str) -> None:
    telemetry.count(names.LIMITS_REFUSED, attributes={names.LIMIT_POLICY: policy})


def _count_degraded() -> None:
    telemetry.count(names.LIMITS_DEGRADED)


def _embedders_state(unserved: Sequence[str]) -> str:
    return f"none for {len(unserved)} stores, '{unserved[0]}' first" if unserved else "ok"


def _stats(running: Sequence[Server], opened: Sequence[Services]) -> Mapping[str, Any]:
    """Return what `ragagent status` shows of this worker; nothing while it boots."""
    if not running:
        return {}
    return {
        "in_flight": running[0].in_flight,
        "connections": running[0].connections,
        "requests": running[0].requests,
        "cache": opened[0].caches.beat(),
    }
