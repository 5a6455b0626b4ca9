"""`ragagent cache`: how well it works, what it holds, and how to empty it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ragagent.cache import keys as names
from ragagent.cli import census
from ragagent.cli.census import Kind
from ragagent.cli.client import JSON, Client, with_client
from ragagent.cli.control import asked
from ragagent.cli.data_directory import with_data, with_settings
from ragagent.cli.database import opened
from ragagent.cli.output import Cell, Output, duration, reporting, size, table
from ragagent.config import Config, Data
from ragagent.errors import RagagentError, Unavailable
from ragagent.store import erasures

_WORKERS = ("WORKER", "PID", "L1 HITS", "L2 HITS", "SEMANTIC", "ENTRIES", "MEMORY", "EVICTED", "FLIGHTS", "REDIS")
_LOOKUPS = ("TIER", "KIND", "LOOK-UPS", "HIT", "STALE", "MISS", "ERROR", "HIT %")
_KINDS = ("KIND", "KEYS", "TENANTS", "MEMORY", "EACH", "TIME LEFT", "NO END")
_OUTCOMES = ("hit", "stale", "miss", "error")


@click.group()
def cache() -> None:
    """Look into the cache, and empty it."""


@cache.command("stats")
@reporting
@with_client
@with_data
def stats(out: Output, client: Client, data: Data) -> None:
    """Show what is found where, in each worker.

    All workers come from the control socket, as each told last; look-ups by kind and Redis from the one that answers.
    """
    workers, no_workers = _attempted(lambda: asked(data, "status")["workers"])
    answered, no_answer = _attempted(lambda: client.get("/v1/ragagent/cache"))
    if no_workers and no_answer:
        raise no_answer
    if out.as_json:
        out.document({"object": "ragagent.cache.stats", "workers": _told(workers or []), "answered": answered})
        return
    for line in _lines(_told(workers or []), answered):
        out.line(line)
    for missing in (no_workers, no_answer):
        if missing:
            click.echo(missing.message, err=True)


@cache.command("purge")
@click.option("--kind", type=click.Choice(["answer", "retrieval", "embedding"]), help="Values of this kind alone.")
@click.option("--tenant", metavar="NAME", help="Another tenant's, without its key.")
@click.option("--all", "everyone", is_flag=True, help="All tenants'.")
@reporting
@with_client
@with_settings
def purge(kind: str | None, tenant: str | None, everyone: bool, out: Output, client: Client, settings: Config) -> None:
    """Empty the cache, by default of the key's own tenant.

    Exit code 1: not all of it could be reached. Nothing needs this to be right: a write to a store makes what was kept
    of it unreachable at once.
    """
    if tenant is not None and everyone:
        raise click.UsageError("--tenant and --all exclude each other.")
    if tenant is None and not everyone:
        found = client.post("/v1/ragagent/cache/purge", {"kind": kind} if kind else {})
    else:
        found = _purged(settings, tenant, kind)
    if out.as_json:
        out.document(found)
    else:
        out.line(_gone(found))
    if not found["complete"]:
        raise Unavailable("Redis could not be searched to its end; purge again when it answers.")


@cache.command("keys")
@click.option("--limit", type=click.IntRange(1), default=100_000, show_default=True, help="Count no more than so many.")
@reporting
@with_settings
def keys(limit: int, out: Output, settings: Config) -> None:
    """Count what Redis holds, by kind.

    Memory is an estimate from a hundred keys of each kind. No value is read.
    """
    found = census.census(settings.redis, limit)
    if out.as_json:
        kinds = [_shown(kind) for kind in found.kinds]
        out.document({"object": "list", "data": kinds, "complete": found.complete})
    elif found.kinds:
        out.line(table(_KINDS, [_kind(kind) for kind in found.kinds]))
        if not found.complete:
            out.line(f"... and more: the count ended at {limit}; see --limit.")
    else:
        out.line("Redis holds nothing of ours.")


def _attempted(ask: Any) -> tuple[Any, RagagentError | None]:
    try:
        return ask(), None
    except RagagentError as exc:
        return None, exc


def _told(workers: Sequence[Mapping[str, Any]]) -> list[JSON]:
    """Return what each worker told of its cache; one that starts has not yet."""
    return [
        {"slot": worker["slot"], "pid": worker["pid"], **worker["stats"]["cache"]}
        for worker in workers
        if "cache" in worker.get("stats", {})
    ]


def _lines(workers: Sequence[Mapping[str, Any]], answered: Mapping[str, Any] | None) -> Iterator[str]:
    if workers:
        yield table(_WORKERS, [_worker(worker) for worker in workers])
    if answered is None:
        return
    yield ""
    yield f"Look-ups of the worker that answered, pid {answered['pid']}:"
    if rows := list(_lookups(answered["lookups"])):
        yield table(_LOOKUPS, rows)
    else:
        yield "none yet."
    yield ""
    yield _redis(answered["redis"])
    if computed := answered["computed"]:
        yield "found in neither tier: " + ", ".join(f"{count} {way}" for way, count in computed.items())
    if refused := answered["refused"]:
        yield "not kept, or not believed: " + ", ".join(f"{count} {reason}" for reason, count in refused.items())
    if semantic := answered["semantic"]:
        yield (
            f"semantic cache: {semantic['state']} · {semantic['questions']} questions · {semantic['samples']} samples, "
            f"{semantic['false_share']:.1%} of them wrong"
        )


def _worker(told: Mapping[str, Any]) -> Sequence[Cell]:
    return (
        f"worker {told['slot']}",
        told["pid"],
        _percent(told["l1_hits"], told["l1_misses"]),
        _percent(told["l2_hits"], told["l2_misses"]),
        told["semantic_hits"] if told["semantic"] != "none" else None,
        told["entries"],
        f"{size(told['bytes'])} of {size(told['max_bytes'])}",
        told["evictions"],
        told["flights"],
        told["redis"],
    )


def _lookups(counts: Mapping[str, Any]) -> Iterator[Sequence[Cell]]:
    for tier, kinds in counts.items():
        if tier == "none":
            continue  # how values were come by, not look-ups
        for kind, outcomes in kinds.items():
            total = sum(outcomes.values())
            found = [outcomes.get(outcome, 0) for outcome in _OUTCOMES]
            yield tier, kind, total, *found, _percent(found[0] + found[1], total - found[0] - found[1])


def _percent(hits: int, others: int) -> str | None:
    return f"{100 * hits / (hits + others):.1f} %" if hits + others else None


def _redis(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "Redis: off; each worker has what it holds itself."
    failed = ", ".join(f"{count} {reason}" for reason, count in found["no_replies"].items()) or "none"
    return (
        f"Redis: {found['state']} · {found['in_use']} of {found['connections']} connections in use · no reply: {failed}"
    )


def _purged(settings: Config, tenant: str | None, kind: str | None) -> JSON:
    if kind == "embedding" and tenant is not None:
        raise click.UsageError("Vectors belong to no tenant; use --all with '--kind embedding'.")
    if tenant is None and kind is not None and kind != "embedding":
        raise click.UsageError("--all takes everything, or '--kind embedding'.")
    owner = names.SHARED if kind == "embedding" else tenant
    prefix = names.PREFIX if owner is None else names.tenant_prefix(owner) + (f"{kind}:" if kind else "")
    with opened(settings.data) as database:
        count, complete = census.purge(settings.redis, prefix) if settings.redis.url else (0, True)
        with database.write() as tx:
            erasures.add_purge(tx, prefix)  # Behind Redis, so that no worker fills itself from there again.
    return {
        "object": "ragagent.cache.purge",
        "scope": "all" if tenant is None else "tenant",
        "kind": kind,
        "local": None,
        "redis": count,
        "complete": complete,
    }


def _gone(found: Mapping[str, Any]) -> str:
    if found["local"] is None:
        return f"{found['redis']} values went from Redis. What the workers hold themselves is gone within a second."
    return (
        f"{found['redis']} values went from Redis, {found['local']} from the worker that answered. What the others "
        "hold is gone within a second."
    )


def _kind(kind: Kind) -> Sequence[Cell]:
    each = size(round(statistics.mean(kind.sizes))) if kind.sizes else None
    left = f"{duration(kind.lives[0])} to {duration(kind.lives[-1])}" if kind.lives else None
    return kind.name, kind.count, len(kind.tenants), size(kind.bytes), each, left, kind.endless


def _shown(kind: Kind) -> JSON:
    lives = kind.lives
    return {
        "kind": kind.name,
        "keys": kind.count,
        "tenants": len(kind.tenants),
        "bytes": kind.bytes,
        "sampled": len(kind.sizes),
        "seconds_left": {"least": lives[0], "median": statistics.median(lives), "most": lives[-1]} if lives else None,
        "without_end": kind.endless,
    }
